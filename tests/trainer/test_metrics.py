import math

import numpy as np
import pytest

from tests.support.training_data import as_histories
from trainer.config import validate_config
from trainer.data.interactions import Cases
from trainer.metrics import (
    DEPTH,
    build_evaluation_set,
    compute_bucket_metrics,
    compute_intervals,
    compute_metrics,
    popularity_buckets,
    rank_targets,
)


def cases(targets):
    users = np.arange(len(targets), dtype=np.int32)
    return Cases(users, as_histories([[0]] * len(targets)), as_histories(targets))


def rankings(*lists):
    """Lists of rows, best first, padded with -1 to DEPTH."""
    return np.array([[*rows, *[-1] * (DEPTH - len(rows))] for rows in lists], dtype=np.int32)


def metrics_of(lists, targets, item_count):
    ranked = rankings(*lists)
    return compute_metrics(ranked, rank_targets(ranked, cases(targets)), item_count)


def test_recall_averages_share_of_targets_over_cases():
    metrics = metrics_of([range(100, 300), range(1, 6)], [[100, 119, 120, 150], [5]], 1_000)
    assert metrics["recall@20"] == pytest.approx((2 / 4 + 1) / 2)
    assert metrics["recall@50"] == pytest.approx((3 / 4 + 1) / 2)
    assert metrics["recall@200"] == 1


def test_ndcg_discounts_by_rank_and_is_1_for_ideal_ranking():
    # hits at ranks 2 and 4, counted from 1; ideal are ranks 1 and 2
    metrics = metrics_of([[9, 1, 8, 2]], [[1, 2]], 10)["ndcg@20"]
    ideal = 1 + 1 / math.log2(3)
    assert metrics == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert metrics_of([[2, 1, 8]], [[1, 2]], 10)["ndcg@20"] == pytest.approx(1)


def test_metrics_of_empty_ranking_are_0():
    metrics = metrics_of([[]], [[3]], 10)
    assert set(metrics.values()) == {0.0}


def test_ndcg_is_1_with_more_targets_than_ranks():
    assert metrics_of([range(100)], [list(range(100))], 100)["ndcg@20"] == pytest.approx(1)


def test_coverage_is_share_of_items_in_any_top_50():
    metrics = metrics_of([range(60), [*range(40, 90), 99]], [[0], [0]], 1_000)
    assert metrics["coverage@50"] == pytest.approx(90 / 1_000)


def test_intervals_are_of_the_mean_over_cases():
    ranked = rankings(*[[1]] * 60, *[[2]] * 40)
    ranks = rank_targets(ranked, cases([[1]] * 100))
    margin = 1.96 * np.std([1] * 60 + [0] * 40, ddof=1) / math.sqrt(100)
    assert compute_intervals(ranks)["recall@50"] == pytest.approx((0.6 - margin, 0.6 + margin))


def test_intervals_are_within_0_and_1():
    ranks = rank_targets(rankings([1], [1], [2]), cases([[1]] * 3))
    low, high = compute_intervals(ranks)["recall@20"]
    assert 0 < low < 2 / 3 < high == 1
    assert compute_intervals(rank_targets(rankings([1]), cases([[1]])))["ndcg@50"] == (1, 1)


def test_evaluation_set_samples_cases_with_the_seed(world_data):
    def chosen(max_cases, seed=0, ease_items_limit=1_000):
        limits = {"max_cases": max_cases, "ease_items_limit": ease_items_limit}
        config = validate_config({"seed": seed, "evaluation": limits}, "a test")
        return build_evaluation_set(world_data, config)

    everyone = chosen(0)
    sampled = chosen(30)
    assert len(everyone.cases.user_rows) == everyone.total_cases == sampled.total_cases == 120
    assert len(sampled.cases.user_rows) == 30
    assert sampled.cases.user_rows.tolist() == chosen(30).cases.user_rows.tolist()
    assert sampled.cases.user_rows.tolist() != chosen(30, seed=1).cases.user_rows.tolist()
    assert len(everyone.ease.validation.user_rows) == 120
    assert chosen(0, ease_items_limit=159).ease is None


def test_popularity_buckets_split_items_and_separate_cold():
    buckets = popularity_buckets(np.array([5, 9, 1, 0, 2, 3, 4, 8, 7, 6]))
    rows = {name: np.flatnonzero(is_in).tolist() for name, is_in in buckets.items()}
    assert rows == {"head": [1], "torso": [0, 7, 8, 9], "tail": [2, 4, 5, 6], "cold": [3]}


@pytest.mark.parametrize(("count", "has_recall"), [(199, False), (200, True)])
def test_bucket_below_200_targets_reports_count_only(count, has_recall):
    ranked = rankings(*[[1, 2]] * count)
    counts = np.array([0, 0, 1])  # item 2 is the tail, item 1 cold
    buckets = compute_bucket_metrics(rank_targets(ranked, cases([[2]] * count)), counts)
    tail = next(bucket for bucket in buckets.values() if bucket["targets"])
    assert tail["targets"] == count
    assert tail.get("recall@20") == (1.0 if has_recall else None)
    assert ("recall@200" in tail) is has_recall
