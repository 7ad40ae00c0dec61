import numpy as np
import pytest

from tests.support.training_data import as_histories
from trainer.baselines import rank_by_ease, rank_by_popularity
from trainer.data.interactions import Cases
from trainer.metrics import DEPTH

ITEM_COUNT = 30


def world(seed=0, users=25):
    rng = np.random.default_rng(seed)
    return [
        rng.choice(ITEM_COUNT, size=rng.integers(1, 12), replace=False).tolist()
        for _ in range(users)
    ]


def cases_of(histories):
    return Cases(
        np.arange(len(histories), dtype=np.int32),
        as_histories(histories),
        as_histories([[0]] * len(histories)),
    )


def unpadded(ranking):
    return [int(row) for row in ranking if row >= 0]


def test_rank_by_popularity_agrees_with_brute_force():
    histories = world()
    counts = np.random.default_rng(1).permutation(ITEM_COUNT).astype(np.int64)
    ranked = rank_by_popularity(counts, cases_of(histories))
    assert ranked.shape == (len(histories), DEPTH)
    for history, ranking in zip(histories, ranked, strict=True):
        expected = sorted(range(ITEM_COUNT), key=lambda row: -counts[row])
        assert unpadded(ranking) == [row for row in expected if row not in history]


def test_rank_by_popularity_breaks_ties_by_row():
    ranked = rank_by_popularity(np.array([1, 2, 1, 2]), cases_of([[3]]))
    assert unpadded(ranked[0]) == [1, 0, 2]


@pytest.mark.parametrize("ridge", [0.5, 20.0])
def test_rank_by_ease_agrees_with_closed_form(ridge):
    train, histories = world(), world(seed=1)
    matrix = np.array([[row in items for row in range(ITEM_COUNT)] for items in train], dtype=float)
    inverse = np.linalg.inv(matrix.T @ matrix + ridge * np.eye(ITEM_COUNT))
    weights = np.eye(ITEM_COUNT) - inverse / np.diag(inverse)[None, :]
    np.testing.assert_allclose(np.diag(weights), 0, atol=1e-12)
    ranked = rank_by_ease(as_histories(train), cases_of(histories), ITEM_COUNT, ridge)
    for history, ranking in zip(histories, ranked, strict=True):
        scores = weights[history].sum(axis=0)
        unseen = np.setdiff1d(np.arange(ITEM_COUNT), history)
        assert sorted(unpadded(ranking)) == unseen.tolist()
        assert (np.diff(scores[unpadded(ranking)]) <= 1e-5).all()


def test_baselines_exclude_seen_items():
    histories = world()
    for ranked in (
        rank_by_popularity(np.ones(ITEM_COUNT, dtype=np.int64), cases_of(histories)),
        rank_by_ease(as_histories(histories), cases_of(histories), ITEM_COUNT, 1.0),
    ):
        for history, ranking in zip(histories, ranked, strict=True):
            assert not set(unpadded(ranking)) & set(history)
