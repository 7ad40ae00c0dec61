import math

import numpy as np
import pytest

from tests.support.training_data import as_histories
from trainer.data.interactions import Cases
from trainer.metrics import DEPTH, bucket_metrics, buckets_of, compute_metrics, rank_targets


def cases(targets):
    users = np.arange(len(targets), dtype=np.int32)
    return Cases(users, as_histories([[0]] * len(targets)), as_histories(targets))


def answers(*lists):
    """Lists of rows, best first, filled up with -1 to the depth of an answer."""
    return np.array([[*one, *[-1] * (DEPTH - len(one))] for one in lists], dtype=np.int32)


def measured(lists, targets, item_count):
    asked = cases(targets)
    found = answers(*lists)
    return compute_metrics(found, rank_targets(found, asked), item_count)


def test_recall_is_the_share_of_a_cases_targets_found_averaged_over_cases():
    found = measured([range(100, 300), range(1, 6)], [[100, 119, 120, 150], [5]], 1_000)
    assert found["recall@20"] == pytest.approx((2 / 4 + 1) / 2)
    assert found["recall@50"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["recall@200"] == 1


def test_ndcg_discounts_by_place_and_an_ideal_answer_has_1():
    # hits at places 2 and 4, counted from 1; ideal are places 1 and 2
    found = measured([[9, 1, 8, 2]], [[1, 2]], 10)["ndcg@20"]
    ideal = 1 + 1 / math.log2(3)
    assert found == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert measured([[2, 1, 8]], [[1, 2]], 10)["ndcg@20"] == pytest.approx(1)


def test_an_answer_of_nothing_measures_0():
    found = measured([[]], [[3]], 10)
    assert set(found.values()) == {0.0}


def test_ndcg_can_reach_1_where_there_are_more_targets_than_places():
    assert measured([range(100)], [list(range(100))], 100)["ndcg@20"] == pytest.approx(1)


def test_coverage_is_the_share_of_items_in_anyones_first_50():
    found = measured([range(60), [*range(40, 90), 99]], [[0], [0]], 1_000)
    assert found["coverage@50"] == pytest.approx(90 / 1_000)


def test_buckets_split_the_items_by_popularity_and_cold_ones_have_no_training_positive():
    buckets = buckets_of(np.array([5, 9, 1, 0, 2, 3, 4, 8, 7, 6]))
    places = {name: np.flatnonzero(is_in).tolist() for name, is_in in buckets.items()}
    assert places == {"head": [1], "torso": [0, 7, 8, 9], "tail": [2, 4, 5, 6], "cold": [3]}


@pytest.mark.parametrize(("count", "is_told"), [(199, False), (200, True)])
def test_a_bucket_of_fewer_than_200_targets_has_its_count_and_no_figure(count, is_told):
    found = answers(*[[1, 2]] * count)
    counts = np.array([0, 0, 1])  # item 2 is the tail, item 1 cold
    buckets = bucket_metrics(rank_targets(found, cases([[2]] * count)), counts)
    tail = next(one for one in buckets.values() if one["targets"])
    assert tail["targets"] == count
    assert tail.get("recall@20") == (1.0 if is_told else None)
    assert ("recall@200" in tail) is is_told
