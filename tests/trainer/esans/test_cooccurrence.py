import numpy as np
import pytest
from scipy import sparse

from trainer.data.interactions import ItemLists
from trainer.esans.cooccurrence import build_behavioural_features, count_cooccurrences, positive_pmi


def of_users(*lists):
    offsets = np.cumsum([0, *(len(one) for one in lists)]).astype(np.int64)
    return ItemLists(offsets, np.array([row for one in lists for row in one], dtype=np.int32))


def two_crowds(users=40, seed=0):
    """Even users take even items of 20, odd users odd ones."""
    rng = np.random.default_rng(seed)
    return of_users(
        *(rng.choice(np.arange(user % 2, 20, 2), 5, replace=False) for user in range(users))
    )


def test_items_count_as_together_once_for_every_user_who_took_both():
    together = count_cooccurrences(of_users([0, 1, 2], [1, 2], [3]), 4, seed=0).toarray()
    assert together.tolist() == [[0, 1, 1, 0], [1, 0, 2, 0], [1, 2, 0, 0], [0, 0, 0, 0]]


def test_only_the_newest_200_items_of_a_user_are_paired():
    together = count_cooccurrences(of_users(range(201)), 201, seed=0)
    assert np.flatnonzero(together.sum(axis=1) == 0).tolist() == [0]


def test_pmi_is_kept_where_two_items_meet_more_often_than_by_chance():
    counts = np.array([[0, 4, 0, 1], [4, 0, 1, 0], [0, 1, 0, 4], [1, 0, 4, 0]], dtype=np.float32)
    found = positive_pmi(sparse.csr_array(counts)).toarray()
    above = np.log(4 * 20 / (5 * 5))
    expected = [[0, above, 0, 0], [above, 0, 0, 0], [0, 0, 0, above], [0, 0, above, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_items_of_one_crowd_point_one_way():
    rows = build_behavioural_features(two_crowds(), 20, 4, seed=0)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    likeness = units @ units.T
    is_same = np.arange(20)[:, None] % 2 == np.arange(20) % 2
    assert np.abs(likeness[~is_same]).max() < 1e-3
    assert likeness[is_same].mean() > 0.3


@pytest.mark.parametrize("lonely", [[], [[3]]])
def test_an_item_that_is_never_taken_with_another_has_no_row(lonely):
    rows = build_behavioural_features(of_users([0, 1], [0, 2], *lonely), 4, 8, seed=0)
    assert np.isnan(rows).all(axis=1).tolist() == [False, False, False, True]


def test_rows_are_no_wider_than_there_are_items():
    assert build_behavioural_features(of_users([0, 1], [1, 2]), 3, 64, seed=0).shape == (3, 3)


def test_nobody_taking_two_items_leaves_no_row_at_all():
    assert np.isnan(build_behavioural_features(of_users([0], [1], []), 3, 8, seed=0)).all()


def test_the_same_seed_learns_the_same():
    one, again = (build_behavioural_features(two_crowds(), 20, 4, seed=7) for _ in range(2))
    assert (one == again).all()


def test_users_are_sampled_where_the_pairs_would_be_too_many():
    together = count_cooccurrences(of_users(*([0, 1, 2],) * 10), 3, seed=0, max_pairs=20)
    assert together.toarray()[0, 1] == 2  # nine pairs each: two users stay below twenty
