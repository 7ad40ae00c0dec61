from dataclasses import replace

import numpy as np
import pytest

from tests.support.training_data import as_histories
from trainer.baselines import (
    build_gram,
    choose_ease_lambda,
    ease_weights,
    rank_baselines,
    rank_by_ease,
    rank_by_popularity,
    reduce_catalogue,
)
from trainer.config import EvaluationConfig
from trainer.data.interactions import Cases
from trainer.metrics import DEPTH, EaseData, EvaluationSet

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


def test_rank_by_popularity_long_histories_agrees_with_sort():
    num_items = 700
    rng = np.random.default_rng(2)
    histories = [rng.permutation(num_items)[:size].tolist() for size in (1, 199, 200, 650, 700)]
    histories.append(list(range(250)))  # the most popular ones
    counts = np.arange(num_items, 0, -1)
    ranked = rank_by_popularity(counts, cases_of(histories))
    for history, ranking in zip(histories, ranked, strict=True):
        expected = np.setdiff1d(np.arange(num_items), history)[:DEPTH]
        assert unpadded(ranking) == expected.tolist()
        assert (ranking[len(expected) :] == -1).all()


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
    gram = build_gram(as_histories(train), ITEM_COUNT)
    ranked = rank_by_ease(gram, cases_of(histories), ridge)
    for history, ranking in zip(histories, ranked, strict=True):
        scores = weights[history].sum(axis=0)
        unseen = np.setdiff1d(np.arange(ITEM_COUNT), history)
        assert sorted(unpadded(ranking)) == unseen.tolist()
        assert (np.diff(scores[unpadded(ranking)]) <= 1e-5).all()


def test_baselines_exclude_seen_items():
    histories = world()
    for ranked in (
        rank_by_popularity(np.ones(ITEM_COUNT, dtype=np.int64), cases_of(histories)),
        rank_by_ease(build_gram(as_histories(histories), ITEM_COUNT), cases_of(histories), 1.0),
    ):
        for history, ranking in zip(histories, ranked, strict=True):
            assert not set(unpadded(ranking)) & set(history)


def test_ease_weights_huge_counts_are_finite():
    """A Gram matrix that is not positive definite in float32."""
    gram = build_gram(as_histories([[0, 1]] * 3), 2) * 1e9
    weights = ease_weights(gram, 1.0)
    assert weights[0, 1] == pytest.approx(1, abs=1e-3)
    assert weights[0, 0] == weights[1, 1] == 0


def evaluation_set(train, validation, num_items):
    histories, targets = zip(*validation, strict=True)
    cases = Cases(
        np.arange(len(histories), dtype=np.int32), as_histories(histories), as_histories(targets)
    )
    lists = as_histories(train)
    counts = np.bincount(lists.item_rows, minlength=num_items)
    ids = [f"item-{row}" for row in range(num_items)]
    return EvaluationSet(ids, cases, len(histories), counts, EaseData(lists, cases))


def test_choose_ease_lambda_takes_the_best_on_validation():
    """Popular items 0..59 occur in noise; 60 and 61 occur twice, together."""
    rng = np.random.default_rng(0)
    train = [rng.choice(60, 20, replace=False).tolist() for _ in range(300)]
    train += [[60, 61, int(rng.integers(60))] for _ in range(2)]
    history = list(range(0, 60, 12))
    evaluated = evaluation_set(train, [([60, *history], [61])] * 5, 62)
    gram = build_gram(evaluated.ease.train, 62)
    grid = (1e6, 1.0)
    ranks = [unpadded(rank_by_ease(gram, evaluated.cases, ridge)[0]).index(61) for ridge in grid]
    assert ranks[0] >= 50 > ranks[1]
    assert choose_ease_lambda(evaluated, EvaluationConfig(ease_lambdas=grid)) == 1.0
    assert choose_ease_lambda(evaluated, EvaluationConfig(ease_lambdas=grid[:1])) == 1e6


def test_choose_ease_lambda_without_ease_data_is_none():
    evaluated = replace(evaluation_set([[0, 1]], [([0], [1])], 2), ease=None)
    assert choose_ease_lambda(evaluated, EvaluationConfig()) is None
    assert [name for name, _ in rank_baselines(evaluated, None)] == ["popularity"]


def test_reduce_catalogue_keeps_cases_with_both():
    data = EaseData(
        as_histories([[0, 1, 2], [3], [2, 4]]),
        Cases(
            np.array([5, 6, 7], dtype=np.int32),
            as_histories([[0, 2], [4], [1, 4]]),
            as_histories([[4], [2], [0]]),
        ),
    )
    reduced = reduce_catalogue(data, np.array([2, 4]), 5)
    assert [reduced.train.get(user).tolist() for user in range(3)] == [[0], [], [0, 1]]
    assert reduced.validation.user_rows.tolist() == [5, 6]
    assert reduced.validation.histories.get(0).tolist() == [0]
    assert reduced.validation.targets.item_rows.tolist() == [1, 0]
