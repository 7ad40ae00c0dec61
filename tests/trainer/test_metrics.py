import math

import numpy as np
import pytest

from tests.support.training_data import as_histories
from trainer.data.interactions import Cases
from trainer.metrics import (
    DEPTH,
    compute_bucket_metrics,
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
