"""Cluster maps: sampling probabilities, files and joins, on a small map of three clusters."""

import json

import numpy as np
import pytest

from index.cluster_layout import build_layout
from index.cluster_map import ClusterMap
from index.cluster_map_io import join, open_cluster_map, save_cluster_map
from index.errors import InvalidClusterMapError
from tests.support.line_map import (
    CODES1,
    CODES2,
    all_rows,
    assert_samples_match,
    build_line_map,
    build_random_map,
    hash_names,
    rows,
)

NUM_SAMPLES = 40_000


def test_easy_probability_is_softmax_of_distance():
    probabilities = build_line_map().easy_probability(rows(0), all_rows(build_line_map()))[0]
    near, far = np.exp(-1) / (np.exp(-1) + np.exp(-3)), np.exp(-3) / (np.exp(-1) + np.exp(-3))
    expected = [0, 0, 0, 0, near / 3, near / 3, near / 3, far / 2, far / 2, 0]
    np.testing.assert_allclose(probabilities, expected, rtol=1e-12)


def test_hard_probability_excludes_own_cell():
    probabilities = build_line_map().hard_probability(rows(0, 2), all_rows(build_line_map()))
    assert probabilities[0].tolist() == [0, 0, 1 / 2, 1 / 2, 0, 0, 0, 0, 0, 0]
    assert probabilities[1].tolist() == [1 / 4, 1 / 4, 0, 1 / 4, 0, 0, 0, 0, 0, 1 / 4]


def test_sample_hard_with_single_cell_falls_back_to_easy():
    clusters = build_line_map()
    hard, easy = (
        probability(rows(0, 7), all_rows(clusters))[1]
        for probability in (clusters.hard_probability, clusters.easy_probability)
    )
    assert (hard == easy).all()
    samples = clusters.sample_hard(
        np.full(NUM_SAMPLES, 7, dtype=np.int32), 1, np.random.default_rng(1)
    )
    assert_samples_match(samples, easy)


@pytest.mark.parametrize("rule", ["easy", "hard"])
@pytest.mark.parametrize("build", [build_line_map, build_random_map])
def test_samples_match_probabilities(rule, build):
    clusters = build()
    rng = np.random.default_rng(2)
    for positive in (0, 2, len(clusters) // 2, len(clusters) - 1):
        positives = np.full(NUM_SAMPLES // 4, positive, dtype=np.int32)
        probabilities = getattr(clusters, f"{rule}_probability")(
            rows(positive), all_rows(clusters)
        )[0]
        assert probabilities.sum() == pytest.approx(1)
        assert_samples_match(getattr(clusters, f"sample_{rule}")(positives, 4, rng), probabilities)


@pytest.mark.parametrize("build", [build_line_map, build_random_map])
def test_easy_pairs_match_mean_easy_probability(build):
    clusters = build()
    rng = np.random.default_rng(3)
    batch = rows(0, 0, 2, 7, 9, len(clusters) - 1)
    shared = clusters.mean_easy_probability(batch, all_rows(clusters))
    mean = clusters.easy_probability(batch, all_rows(clusters)).mean(axis=0)
    np.testing.assert_allclose(shared, mean, atol=1e-12)
    pairs = clusters.sample_easy_pairs(rng.choice(batch, NUM_SAMPLES), rng)
    assert_samples_match(pairs[:, 0], shared)
    assert_samples_match(pairs[:, 1], shared)


def test_easy_pairs_share_another_cluster_and_differ():
    clusters = build_line_map(codes1=[0, 0, 1, 1, 1, 2], codes2=[0] * 6)
    positives = rows(0, 1, 2, 5).repeat(500)
    pairs = clusters.sample_easy_pairs(positives, np.random.default_rng(4))
    codes = clusters.codes1[pairs]
    assert (codes[:, 0] == codes[:, 1]).all()
    assert (codes[:, 0] != clusters.codes1[positives]).all()
    assert ((pairs[:, 0] != pairs[:, 1]) | (codes[:, 0] == 2)).all()


def test_probability_per_positive_equals_shared_rows():
    clusters = build_random_map()
    rng = np.random.default_rng(5)
    positives, own_rows = rng.integers(0, 300, 8), rng.integers(0, 300, (8, 5))
    for probability in (
        clusters.easy_probability,
        clusters.hard_probability,
        clusters.is_same_cell,
    ):
        shared = probability(positives, all_rows(clusters))
        assert (
            probability(positives, own_rows) == np.take_along_axis(shared, own_rows, axis=1)
        ).all()


@pytest.mark.parametrize("build", [build_line_map, build_random_map])
def test_samples_exclude_own_cell(build):
    clusters = build()
    positives = all_rows(clusters).repeat(20)
    rng = np.random.default_rng(6)
    for samples in (
        clusters.sample_easy(positives, 3, rng),
        clusters.sample_hard(positives, 3, rng),
    ):
        assert samples.shape == (len(positives), 3)
        assert samples.dtype == np.int32
        assert not clusters.is_same_cell(positives, samples).any()


def test_is_same_cell_compares_both_codes():
    assert build_line_map().is_same_cell(rows(0, 7), rows(1, 2, 8, 9)).tolist() == [
        [True, False, False, True],
        [False, False, True, False],
    ]


def test_sample_easy_with_single_cluster_uses_other_cells():
    clusters = build_line_map(codes1=[0] * 4, codes2=[0, 0, 1, 2], centroids=[5])
    for probability in (clusters.easy_probability, clusters.hard_probability):
        expected = [[0, 0, 1 / 2, 1 / 2], [1 / 3, 1 / 3, 0, 1 / 3]]
        np.testing.assert_allclose(probability(rows(0, 2), all_rows(clusters)), expected)
    np.testing.assert_allclose(
        clusters.mean_easy_probability(rows(0, 2), all_rows(clusters)),
        [1 / 6, 1 / 6, 1 / 4, 5 / 12],
    )
    assert_samples_match(
        clusters.sample_easy_pairs(
            np.full(NUM_SAMPLES, 2, dtype=np.int32), np.random.default_rng(7)
        ),
        clusters.easy_probability(rows(2), all_rows(clusters))[0],
    )


@pytest.mark.parametrize("rule", ["easy", "hard"])
def test_samples_with_single_cell_cover_the_catalogue(rule):
    clusters = build_line_map(codes1=[1] * 4, codes2=[0] * 4)
    samples = getattr(clusters, f"sample_{rule}")(rows(0, 3), NUM_SAMPLES, np.random.default_rng(8))
    probabilities = getattr(clusters, f"{rule}_probability")(rows(0, 3), all_rows(clusters))
    assert (probabilities == 1 / 4).all()
    assert_samples_match(samples, probabilities[0])
    assert clusters.is_same_cell(rows(0, 3), samples).all()


def test_samples_with_single_item_return_that_item():
    clusters = build_line_map(codes1=[0], codes2=[0], centroids=[1])
    rng = np.random.default_rng(9)
    assert clusters.sample_easy(rows(0), 2, rng).tolist() == [[0, 0]]
    assert clusters.sample_hard(rows(0), 2, rng).tolist() == [[0, 0]]
    assert clusters.sample_easy_pairs(rows(0), rng).tolist() == [[0, 0]]


def test_sample_easy_skips_empty_clusters():
    clusters = build_line_map(codes1=[0, 0, 2, 2], codes2=[0] * 4)
    assert (
        clusters.codes1[clusters.sample_easy(rows(0), NUM_SAMPLES, np.random.default_rng(10))] == 2
    ).all()
    assert clusters.easy_probability(rows(0), all_rows(clusters)).tolist() == [[0, 0, 1 / 2, 1 / 2]]


def test_easy_probability_with_equal_centroids_is_uniform():
    clusters = build_line_map(codes1=[0, 1, 2], codes2=[0] * 3, centroids=[4, 4, 4])
    assert clusters.easy_probability(rows(0), all_rows(clusters))[0].tolist() == pytest.approx(
        [0, 0.5, 0.5]
    )


def test_samples_with_same_seed_are_equal():
    clusters = build_random_map()
    for sample in (clusters.sample_easy, clusters.sample_hard):
        first, second = (sample(all_rows(clusters), 3, np.random.default_rng(11)) for _ in range(2))
        assert (first == second).all()


def test_version_depends_on_content_not_provenance():
    clusters = build_line_map(made={"at": "noon"})
    assert clusters.version == build_line_map(made={"at": "dusk"}).version
    others = [
        build_line_map(codes2=[*CODES2[:-1], 1]),
        build_line_map(centroids=[0, 1, 4]),
        build_line_map(temperature_share=0.4),
        build_line_map(codes1=[1, *CODES1[1:]]),
    ]
    assert len({clusters.version, *(other.version for other in others)}) == 5


def test_open_cluster_map_returns_saved_map(tmp_path):
    saved = build_line_map(made={"seed": 3, "modalities": ["visual"]})
    save_cluster_map(saved, tmp_path)
    opened = open_cluster_map(tmp_path)
    assert (opened.version, opened.made) == (saved.version, saved.made)
    positives = all_rows(saved)
    samples = [
        clusters.sample_hard(positives, 4, np.random.default_rng(12))
        for clusters in (saved, opened)
    ]
    assert (samples[0] == samples[1]).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cluster_map.centroids.npy",
        "cluster_map.codes1.npy",
        "cluster_map.codes2.npy",
        "cluster_map.id_hashes.npy",
        "cluster_map.json",
    ]


def test_open_cluster_map_reports_all_missing_files(tmp_path):
    save_cluster_map(build_line_map(), tmp_path)
    (tmp_path / "cluster_map.json").unlink()
    (tmp_path / "cluster_map.codes1.npy").write_bytes(b"")
    with pytest.raises(InvalidClusterMapError, match=r"(?s)2 faults.*map.json.*codes1.npy"):
        open_cluster_map(tmp_path)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("codes1", np.full(10, 7, np.int32), "codes1 is out of range, expected 0..2"),
        ("codes2", np.full(10, -1, np.int32), "codes2 is out of range"),
        ("codes2", np.zeros(9, np.int32), r"codes2 is .*9.*expected .*10"),
        ("codes2", np.zeros(10, np.int32), "the arrays are version"),
        ("centroids", np.full((3, 1), np.nan, np.float32), "non-finite"),
        ("centroids", np.zeros((3, 1)), "float64"),
        ("id_hashes", np.zeros(10, np.int64), "expected .*uint64"),
    ],
)
def test_open_cluster_map_rejects_inconsistent_arrays(tmp_path, name, values, message):
    save_cluster_map(build_line_map(), tmp_path)
    np.save(tmp_path / f"cluster_map.{name}.npy", values)
    with pytest.raises(InvalidClusterMapError, match=message):
        open_cluster_map(tmp_path)


def test_open_cluster_map_rejects_pickled_arrays(tmp_path):
    save_cluster_map(build_line_map(), tmp_path)
    np.save(tmp_path / "cluster_map.codes1.npy", np.array([{}], dtype=object))
    with pytest.raises(InvalidClusterMapError, match=r"codes1\.npy: cannot be read"):
        open_cluster_map(tmp_path)


def test_open_cluster_map_rejects_unknown_metadata_key(tmp_path):
    save_cluster_map(build_line_map(), tmp_path)
    path = tmp_path / "cluster_map.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "red"}))
    with pytest.raises(InvalidClusterMapError, match="colour"):
        open_cluster_map(tmp_path)


def test_cluster_map_without_items_raises():
    with pytest.raises(ValueError, match="codes1 is empty"):
        build_line_map(codes1=[], codes2=[])


def test_join_matches_codes_by_id():
    clusters = join(build_line_map(), hash_names(["item-9", "item-7", "item-2"]))
    assert clusters.codes1.tolist() == [0, 2, 0]
    assert clusters.codes2.tolist() == [0, 3, 1]
    assert (clusters.centroids == build_line_map().centroids).all()
    assert clusters.easy_probability(rows(0), all_rows(clusters)).tolist() == [[0, 1, 0]]
    assert clusters.made == {"joined_from": build_line_map().version, "unknown_items": 0}


def test_join_of_many_items_agrees_with_a_dictionary():
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 2**64, 3_000, dtype=np.uint64)
    codes = rng.integers(0, 40, 2_000).astype(np.int32)
    clusters = ClusterMap(codes, codes, np.eye(40, dtype=np.float32), hashes[:2_000])
    catalogue = rng.permutation(hashes)
    codes_of = dict(zip(hashes[:2_000].tolist(), codes.tolist(), strict=True))
    expected = [codes_of.get(item, 40) for item in catalogue.tolist()]
    assert join(clusters, catalogue).codes1.tolist() == expected


def test_layout_orders_rows_by_cell_then_row():
    rng = np.random.default_rng(4)
    codes1, codes2 = (rng.integers(0, 50, 20_000).astype(np.int32) for _ in range(2))
    layout = build_layout(codes1, codes2, 50, 50)
    assert (layout.order == np.lexsort((codes2, codes1))).all()
    assert layout.order.dtype == np.int32


def test_join_puts_unknown_items_in_cluster_at_origin():
    clusters = join(
        build_line_map(centroids=[1, 2, 4]), hash_names(["new", "item-0", "item-4", "newer"])
    )
    assert clusters.codes1.tolist() == [3, 0, 1, 3]
    assert clusters.centroids[3].tolist() == [0]
    assert clusters.hard_probability(rows(0), all_rows(clusters))[0][[0, 3]].tolist() == [0, 0]
    assert clusters.easy_probability(rows(1), all_rows(clusters))[0].argmin() == 1
    assert clusters.made["unknown_items"] == 2


def test_join_rejects_duplicate_hashes():
    duplicated = build_line_map()
    duplicated.id_hashes[4] = duplicated.id_hashes[1]
    with pytest.raises(InvalidClusterMapError, match="rows 1 and 4 share an id hash"):
        join(duplicated, duplicated.id_hashes)
