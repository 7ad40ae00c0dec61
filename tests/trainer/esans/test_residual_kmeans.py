import numpy as np
import pytest

from index.ann import index as index_module
from tests.support.planted_map import QUICK, grouped_rows, groups_of, is_divided
from trainer.esans.alignment import AlignedItems
from trainer.esans.residual_kmeans import (
    default_num_clusters,
    default_num_codes,
    fit_codebooks,
    train_centroids,
)


def config_of(level_1, level_2=2):
    return QUICK.model_copy(update={"level_1_codes": level_1, "level_2_codes": level_2})


def aligned(*blocks, presence=None):
    """Aligned items with the given blocks [num_items, dim]."""
    named = {f"m{index}": block.astype(np.float32) for index, block in enumerate(blocks)}
    if presence is None:
        presence = np.ones((len(blocks[0]), len(blocks)), dtype=bool)
    return AlignedItems(named, presence, None)


def test_fit_codebooks_finds_planted_groups():
    groups = groups_of(120, 3)
    rows = grouped_rows(groups, 8, seed=0, spread=0.05)
    codebooks = fit_codebooks(aligned(rows), config_of(3), seed=0)
    assert len(codebooks.centroids) == 3
    assert is_divided(codebooks.codes1, groups)


def test_fit_codebooks_level_2_splits_residuals():
    """Clusters lie far apart on axis 0; the same small step on axis 1 divides each."""
    far, step = groups_of(120, 3), groups_of(120, 2)
    rows = np.stack([far * 100.0, step * 1.0], axis=1)
    codebooks = fit_codebooks(aligned(rows), config_of(3, 2), seed=0)
    assert is_divided(codebooks.codes1, far)
    assert is_divided(codebooks.codes2, step)
    assert set(codebooks.codes2.tolist()) == {0, 1}


def test_fit_codebooks_centroids_are_cluster_means():
    rows = grouped_rows(groups_of(120, 3), 8, seed=0)
    codebooks = fit_codebooks(aligned(rows, 3 * rows), config_of(3), seed=0)
    for code in range(3):
        mean = (2 * rows)[codebooks.codes1 == code].mean(axis=0)
        np.testing.assert_allclose(codebooks.centroids[code], mean, atol=1e-5)


@pytest.mark.parametrize("different", [1, 3])
def test_fit_codebooks_never_exceeds_distinct_rows(different):
    groups = groups_of(90, different)
    rows = grouped_rows(groups, 6, seed=0, spread=0)
    codebooks = fit_codebooks(aligned(rows), config_of(40, 16), seed=0)
    assert set(codebooks.codes1.tolist()) == set(range(different))
    assert codebooks.centroids.shape == (different, 6)
    assert is_divided(codebooks.codes1, groups)
    cells = codebooks.codes1 * 16 + codebooks.codes2
    assert len(np.unique(cells)) == different  # equal items share their cell


def test_fit_codebooks_small_catalogue_has_cluster_per_item():
    codebooks = fit_codebooks(aligned(np.eye(5)), config_of(8), seed=0)
    assert sorted(codebooks.codes1.tolist()) == [0, 1, 2, 3, 4]


def test_fit_codebooks_accepts_a_single_item():
    codebooks = fit_codebooks(aligned(np.ones((1, 4))), config_of(0), seed=0)
    assert (codebooks.codes1.tolist(), codebooks.codes2.tolist()) == ([0], [0])


def test_fit_codebooks_groups_items_without_content():
    presence = np.ones((60, 1), dtype=bool)
    presence[[5, 50]] = False
    rows = grouped_rows(groups_of(60), 4, seed=0) * presence
    codebooks = fit_codebooks(aligned(rows, presence=presence), config_of(2), seed=0)
    assert np.flatnonzero(codebooks.codes1 == 2).tolist() == [5, 50]
    assert codebooks.centroids[2].tolist() == [0] * 4
    assert codebooks.codes2[[5, 50]].tolist() == [0, 0]


def test_fit_codebooks_without_content_has_single_cell():
    nothing = aligned(np.zeros((6, 4)), presence=np.zeros((6, 1), dtype=bool))
    codebooks = fit_codebooks(nothing, config_of(2), seed=0)
    assert not codebooks.codes1.any()
    assert not codebooks.codes2.any()
    assert codebooks.centroids.tolist() == [[0] * 4]


def test_fit_codebooks_same_seed_is_deterministic():
    rows = np.random.default_rng(0).normal(size=(500, 8))
    first, repeated, other = (fit_codebooks(aligned(rows), config_of(20), s) for s in (1, 1, 2))
    assert (first.codes1 == repeated.codes1).all()
    assert (first.codes2 == repeated.codes2).all()
    assert (first.codes1 != other.codes1).any()


@pytest.mark.parametrize(
    ("items", "codes"), [(1, 8), (64, 8), (3_000, 55), (10**6, 1_000), (10**9, 4_096)]
)
def test_default_num_clusters_is_clipped_square_root(items, codes):
    assert default_num_clusters(items) == codes


def test_train_centroids_prints_nothing(capfd):
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    train_centroids(points, 20, seed=0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("items", "codes"), [(50, 2), (10_000, 8), (1_000_000, 83), (10_000_000, 264)]
)
def test_default_num_codes_keeps_the_size_of_cells(items, codes):
    num_clusters = default_num_clusters(items)
    assert default_num_codes(items, num_clusters) == codes
    assert items < 1_000 or 11 < items / (num_clusters * codes) < 13


def test_train_centroids_does_not_depend_on_threads(monkeypatch):
    points = np.random.default_rng(0).standard_normal((20_000, 16), dtype=np.float32)
    centroids = []
    for threads in (1, 2):
        monkeypatch.setattr(index_module, "NUM_THREADS", threads)
        centroids.append(train_centroids(points, 100, seed=0))
    np.testing.assert_array_equal(*centroids)
