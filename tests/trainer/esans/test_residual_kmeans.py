import numpy as np
import pytest

from tests.support.planted_map import QUICK, grouped_rows, groups_of, is_divided
from trainer.esans.alignment import AlignedItems
from trainer.esans.residual_kmeans import default_num_clusters, fit_codebooks, train_centroids


def configured(level_1, level_2=2):
    return QUICK.model_copy(update={"level_1_codes": level_1, "level_2_codes": level_2})


def aligned(*blocks, presence=None):
    """Blocks [items, width] as if they had been aligned."""
    named = {f"m{place}": block.astype(np.float32) for place, block in enumerate(blocks)}
    if presence is None:
        presence = np.ones((len(blocks[0]), len(blocks)), dtype=bool)
    return AlignedItems(named, presence, None)


def test_planted_groups_become_clusters():
    groups = groups_of(120, 3)
    rows = grouped_rows(groups, 8, seed=0, spread=0.05)
    books = fit_codebooks(aligned(rows), configured(3), seed=0)
    assert len(books.centroids) == 3
    assert is_divided(books.codes1, groups)


def test_within_every_cluster_level_2_tells_what_level_1_left():
    """Clusters lie far apart on axis 0; the same small step on axis 1 divides each."""
    far, step = groups_of(120, 3), groups_of(120, 2)
    rows = np.stack([far * 100.0, step * 1.0], axis=1)
    books = fit_codebooks(aligned(rows), configured(3, 2), seed=0)
    assert is_divided(books.codes1, far)
    assert is_divided(books.codes2, step)
    assert set(books.codes2.tolist()) == {0, 1}


def test_centroids_are_the_means_of_their_clusters():
    rows = grouped_rows(groups_of(120, 3), 8, seed=0)
    books = fit_codebooks(aligned(rows, 3 * rows), configured(3), seed=0)
    for code in range(3):
        mean = (2 * rows)[books.codes1 == code].mean(axis=0)
        np.testing.assert_allclose(books.centroids[code], mean, atol=1e-5)


@pytest.mark.parametrize("different", [1, 3])
def test_there_are_no_more_codes_than_different_rows(different):
    groups = groups_of(90, different)
    rows = grouped_rows(groups, 6, seed=0, spread=0)
    books = fit_codebooks(aligned(rows), configured(40, 16), seed=0)
    assert set(books.codes1.tolist()) == set(range(different))
    assert books.centroids.shape == (different, 6)
    assert is_divided(books.codes1, groups)
    cells = books.codes1 * 16 + books.codes2
    assert len(np.unique(cells)) == different  # equal items share their cell


def test_a_catalogue_smaller_than_the_codes_gets_a_cluster_per_item():
    books = fit_codebooks(aligned(np.eye(5)), configured(8), seed=0)
    assert sorted(books.codes1.tolist()) == [0, 1, 2, 3, 4]


def test_a_single_item_is_a_cluster():
    books = fit_codebooks(aligned(np.ones((1, 4))), configured(0), seed=0)
    assert (books.codes1.tolist(), books.codes2.tolist()) == ([0], [0])


def test_items_of_which_nothing_is_known_are_a_cluster_of_their_own_at_the_origin():
    presence = np.ones((60, 1), dtype=bool)
    presence[[5, 50]] = False
    rows = grouped_rows(groups_of(60), 4, seed=0) * presence
    books = fit_codebooks(aligned(rows, presence=presence), configured(2), seed=0)
    assert np.flatnonzero(books.codes1 == 2).tolist() == [5, 50]
    assert books.centroids[2].tolist() == [0] * 4
    assert books.codes2[[5, 50]].tolist() == [0, 0]


def test_where_nothing_is_known_of_any_item_all_share_one_cell():
    nothing = aligned(np.zeros((6, 4)), presence=np.zeros((6, 1), dtype=bool))
    books = fit_codebooks(nothing, configured(2), seed=0)
    assert not books.codes1.any()
    assert not books.codes2.any()
    assert books.centroids.tolist() == [[0] * 4]


def test_the_same_seed_finds_the_same_codes_and_another_others():
    rows = np.random.default_rng(0).normal(size=(500, 8))
    one, again, other = (fit_codebooks(aligned(rows), configured(20), s) for s in (1, 1, 2))
    assert (one.codes1 == again.codes1).all()
    assert (one.codes2 == again.codes2).all()
    assert (one.codes1 != other.codes1).any()


@pytest.mark.parametrize(
    ("items", "codes"), [(1, 8), (64, 8), (3_000, 55), (10**6, 1_000), (10**9, 4_096)]
)
def test_the_automatic_count_is_the_root_of_the_items_within_8_and_4096(items, codes):
    assert default_num_clusters(items) == codes


def test_training_says_nothing_and_warns_of_nothing(capfd):
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    train_centroids(points, 20, seed=0)
    assert capfd.readouterr() == ("", "")
