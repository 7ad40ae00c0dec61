import numpy as np
import pytest
from scipy import sparse

from trainer.data.interactions import ItemLists
from trainer.esans.cooccurrence import (
    build_behavioural_features,
    count_cooccurrences,
    replace_by_positive_pmi,
)


def histories_of(*lists):
    offsets = np.cumsum([0, *(len(items) for items in lists)]).astype(np.int64)
    return ItemLists(offsets, np.array([row for items in lists for row in items], dtype=np.int32))


def two_communities(users=40, seed=0):
    """Histories in which even users have even items of 20 and odd users odd ones."""
    rng = np.random.default_rng(seed)
    return histories_of(
        *(rng.choice(np.arange(user % 2, 20, 2), 5, replace=False) for user in range(users))
    )


def test_count_cooccurrences_counts_users_of_both_items():
    cooccurrences = count_cooccurrences(histories_of([0, 1, 2], [1, 2], [3]), 4, seed=0).toarray()
    assert cooccurrences.tolist() == [[0, 1, 1, 0], [1, 0, 2, 0], [1, 2, 0, 0], [0, 0, 0, 0]]


def test_count_cooccurrences_uses_newest_200_items():
    cooccurrences = count_cooccurrences(histories_of(range(201)), 201, seed=0)
    assert np.flatnonzero(cooccurrences.sum(axis=1) == 0).tolist() == [0]


def test_positive_pmi_keeps_pairs_above_chance():
    counts = np.array([[0, 4, 0, 1], [4, 0, 1, 0], [0, 1, 0, 4], [1, 0, 4, 0]], dtype=np.float32)
    pmi = replace_by_positive_pmi(sparse.csr_array(counts)).toarray()
    expected_pmi = np.log(4 * 20 / (5 * 5))
    expected = [
        [0, expected_pmi, 0, 0],
        [expected_pmi, 0, 0, 0],
        [0, 0, 0, expected_pmi],
        [0, 0, expected_pmi, 0],
    ]
    np.testing.assert_allclose(pmi, expected, rtol=1e-6)


def test_positive_pmi_of_many_rows_matches_definition():
    rng = np.random.default_rng(0)
    counts = sparse.random_array((70_000, 70_000), density=1e-5, rng=rng, format="csr")
    counts = sparse.csr_array(counts + counts.T, dtype=np.float32)
    totals = counts.sum(axis=1)
    pairs = counts.tocoo()
    expected = np.log(pairs.data * totals.sum() / (totals[pairs.row] * totals[pairs.col]))
    pmi = replace_by_positive_pmi(counts).tocoo()
    assert np.array_equal(pmi.row, pairs.row[expected > 0])
    np.testing.assert_allclose(pmi.data, expected[expected > 0], rtol=1e-3, atol=1e-5)


def test_behavioural_features_group_communities():
    rows = build_behavioural_features(two_communities(), 20, 4, seed=0)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similarity = units @ units.T
    is_same = np.arange(20)[:, None] % 2 == np.arange(20) % 2
    assert np.abs(similarity[~is_same]).max() < 1e-3
    assert similarity[is_same].mean() > 0.3


@pytest.mark.parametrize("lonely", [[], [[3]]])
def test_behavioural_features_lonely_item_is_nan(lonely):
    rows = build_behavioural_features(histories_of([0, 1], [0, 2], *lonely), 4, 8, seed=0)
    assert np.isnan(rows).all(axis=1).tolist() == [False, False, False, True]


def test_behavioural_features_dim_is_at_most_num_items():
    assert build_behavioural_features(histories_of([0, 1], [1, 2]), 3, 64, seed=0).shape == (3, 3)


def test_behavioural_features_without_pairs_are_nan():
    assert np.isnan(build_behavioural_features(histories_of([0], [1], []), 3, 8, seed=0)).all()


def test_behavioural_features_same_seed_is_deterministic():
    first, repeated = (
        build_behavioural_features(two_communities(), 20, 4, seed=7) for _ in range(2)
    )
    assert (first == repeated).all()


def test_count_cooccurrences_samples_users_above_limit():
    cooccurrences = count_cooccurrences(histories_of(*([0, 1, 2],) * 10), 3, seed=0, max_pairs=20)
    assert cooccurrences.toarray()[0, 1] == 2  # nine pairs each: two users stay below twenty
