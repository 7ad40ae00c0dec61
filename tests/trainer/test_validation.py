import math

import numpy as np
import pytest
import torch

from tests.support.training_data import as_histories, unit
from trainer.data.interactions import Cases
from trainer.towers import UserTower
from trainer.validation import encode_histories, rank_unseen, validation_recall

DIM, LENGTH = 16, 8


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return UserTower(DIM, LENGTH, is_ordered=True)


def histories_of(num_items, cases=40, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, min(12, num_items), size=cases)
    return [rng.choice(num_items, size, replace=False).tolist() for size in sizes]


def brute_force(tower, vectors, histories, count):
    """Score everything, one history at a time; ties by row."""
    ranked = np.full((len(histories), count), -1)
    for case, history in enumerate(histories):
        scores = encode_single(tower, vectors, history) @ vectors.T
        scores[history] = -math.inf
        order = scores.argsort(descending=True, stable=True)[: len(scores) - len(history)][:count]
        ranked[case, : len(order)] = order.numpy()
    return ranked


def encode_single(tower, vectors, history):
    newest = vectors[history[::-1][:LENGTH]][None]
    with torch.no_grad():
        return tower(newest, torch.ones(1, newest.shape[1], dtype=torch.bool))[0]


def ranked_by(tower, vectors, histories, count=50):
    return rank_unseen(tower, vectors.__getitem__, len(vectors), as_histories(histories), count)


@pytest.mark.parametrize("num_items", [1, 30, 255, 256, 257, 3_000, 9_001])
def test_rank_unseen_agrees_with_brute_force(tower, num_items):
    vectors = unit(num_items, width=DIM)
    histories = histories_of(num_items) if num_items > 1 else [[0]]
    ranked = ranked_by(tower, vectors, histories)
    expected = brute_force(tower, vectors, histories, 50)
    assert ((ranked >= 0) == (expected >= 0)).all()
    for ranking, best, history in zip(ranked, expected, histories, strict=True):
        scores = (vectors @ encode_single(tower, vectors, history)).numpy()
        np.testing.assert_allclose(scores[ranking], scores[best], atol=1e-6)
        assert len({*ranking[ranking >= 0], *history}) == (ranking >= 0).sum() + len(history)


def test_rank_unseen_breaks_ties_by_row(tower):
    # powers of two: every product is exact; rows differ by sign only
    signs = np.random.default_rng(1).choice([-1.0, 1.0], size=9_000).astype(np.float32)
    vectors = torch.zeros(9_000, DIM)
    vectors[:, 0] = torch.from_numpy(signs)
    histories = histories_of(9_000, cases=6)
    expected = brute_force(tower, vectors, histories, 50)
    np.testing.assert_array_equal(ranked_by(tower, vectors, histories), expected)


def test_rank_unseen_best_items_last_agrees_with_sort(tower):
    vectors = unit(5_000, width=DIM)
    query = encode_single(tower, vectors, [0])
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + (vectors[1:] @ query).argsort()])
    ranked = ranked_by(tower, vectors[order], [[0]])
    assert ranked[0].tolist() == list(range(4_999, 4_949, -1))


def test_rank_unseen_encodes_each_block_once(tower):
    vectors, encoded = unit(9_000, width=DIM), []

    def encode(rows):
        encoded.append(rows)
        return vectors[rows]

    histories = [[3], [5, 4]]
    rank_unseen(tower, encode, 9_000, as_histories(histories), 50)
    assert encoded[0].tolist() == [0, 3, 4, 5]  # row 0 is the padding
    assert torch.cat(encoded[1:]).tolist() == list(range(9_000))


def test_validation_recall_averages_cases(tower):
    vectors, histories = unit(400, width=DIM), histories_of(400, cases=3)
    best = brute_force(tower, vectors, histories, 60)
    targets = [[best[0][0]], [best[1][1], best[1][59]], [best[2][55]]]
    cases = Cases(np.arange(3, dtype=np.int32), as_histories(histories), as_histories(targets))
    recall = validation_recall(tower, vectors.__getitem__, 400, cases)
    assert recall == pytest.approx((1 + 1 / 2 + 0) / 3)


@pytest.mark.parametrize("row", [7, 399])
def test_rank_unseen_not_finite_vector_raises(tower, row):
    vectors = unit(400, width=DIM)
    vectors[row, 2] = math.nan
    with pytest.raises(FloatingPointError):
        ranked_by(tower, vectors, [[0, 1]])


def test_encode_histories_reads_the_newest_items(tower):
    vectors = unit(30, width=DIM)
    histories = [np.arange(12, dtype=np.int32), np.array([3, 9], dtype=np.int32)]
    with torch.no_grad():
        encoded = encode_histories(tower, vectors.__getitem__, histories)
    for query, history in zip(encoded, histories, strict=True):
        expected = encode_single(tower, vectors, history.tolist())
        torch.testing.assert_close(query, expected, rtol=0, atol=1e-6)
