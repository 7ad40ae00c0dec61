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


def asked(histories):
    return Cases(
        np.arange(len(histories), dtype=np.int32),
        as_histories(histories),
        as_histories([[0]] * len(histories)),
    )


def kept(answer):
    return [int(row) for row in answer if row >= 0]


def test_popularity_agrees_with_brute_force():
    histories = world()
    counts = np.random.default_rng(1).permutation(ITEM_COUNT).astype(np.int64)
    found = rank_by_popularity(counts, asked(histories))
    assert found.shape == (len(histories), DEPTH)
    for history, answer in zip(histories, found, strict=True):
        wanted = sorted(range(ITEM_COUNT), key=lambda row: -counts[row])
        assert kept(answer) == [row for row in wanted if row not in history]


def test_popularity_breaks_ties_by_row():
    found = rank_by_popularity(np.array([1, 2, 1, 2]), asked([[3]]))
    assert kept(found[0]) == [1, 0, 2]


@pytest.mark.parametrize("ridge", [0.5, 20.0])
def test_ease_agrees_with_its_formula_written_out(ridge):
    train, histories = world(), world(seed=1)
    took = np.array([[row in one for row in range(ITEM_COUNT)] for one in train], dtype=float)
    inverse = np.linalg.inv(took.T @ took + ridge * np.eye(ITEM_COUNT))
    weights = np.eye(ITEM_COUNT) - inverse / np.diag(inverse)[None, :]
    np.testing.assert_allclose(np.diag(weights), 0, atol=1e-12)
    found = rank_by_ease(as_histories(train), asked(histories), ITEM_COUNT, ridge)
    for history, answer in zip(histories, found, strict=True):
        scores = weights[history].sum(axis=0)
        rest = np.setdiff1d(np.arange(ITEM_COUNT), history)
        assert sorted(kept(answer)) == rest.tolist()  # all that is left, and nothing seen
        assert (np.diff(scores[kept(answer)]) <= 1e-5).all()


def test_references_never_answer_with_what_was_seen():
    histories = world()
    for found in (
        rank_by_popularity(np.ones(ITEM_COUNT, dtype=np.int64), asked(histories)),
        rank_by_ease(as_histories(histories), asked(histories), ITEM_COUNT, 1.0),
    ):
        for history, answer in zip(histories, found, strict=True):
            assert not set(kept(answer)) & set(history)
