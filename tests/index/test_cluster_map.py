"""The map by hand: clusters on a line, so that a reader can tell who is near whom.

Cluster 0 stands at 0, 1 at 1, 2 at 3. The median distance is 2 and T = 0.5 of it = 1, so from
cluster 0 the odds of clusters 1 and 2 are exp(-1) to exp(-3).
"""

import json

import numpy as np
import pytest
from scipy.stats import chisquare

from index.cluster_map import ClusterMap
from index.cluster_map_io import join, open_cluster_map, save_cluster_map
from index.errors import InvalidClusterMapError
from index.ids import hash_ids

CODES1 = [0, 0, 0, 0, 1, 1, 1, 2, 2, 0]
CODES2 = [0, 0, 1, 2, 0, 0, 1, 3, 3, 0]
LINE = [0, 1, 3]
DRAWS = 40_000


def hashes(names):
    return hash_ids([name.encode() for name in names])


def by_hand(codes1=CODES1, codes2=CODES2, line=LINE, share=0.5, **options):
    return ClusterMap(
        codes1=np.array(codes1, dtype=np.int32),
        codes2=np.array(codes2, dtype=np.int32),
        centroids=np.array(line, dtype=np.float32)[:, None],
        id_hashes=hashes(f"item-{row}" for row in range(len(codes1))).copy(),
        temperature_share=share,
        **options,
    )


def rows(*values):
    return np.array(values, dtype=np.int32)


def everyone(found):
    return np.arange(len(found), dtype=np.int32)


def assert_drawn_as_told(drawn, chances):
    """A chi-square test: what was never to be drawn was not, the rest as often as told."""
    counts = np.bincount(drawn.ravel(), minlength=len(chances))
    assert counts[chances == 0].sum() == 0
    if (chances > 0).sum() == 1:
        return
    told = chances[chances > 0] * drawn.size
    assert chisquare(counts[chances > 0], told * (counts.sum() / told.sum())).pvalue > 1e-3


def crowd(seed=0):
    """300 items in 12 clusters of 4 codes, of uneven sizes, in a plane."""
    rng = np.random.default_rng(seed)
    return ClusterMap(
        codes1=np.sort(rng.integers(0, 12, 300) * rng.integers(0, 2, 300)).astype(np.int32),
        codes2=rng.integers(0, 4, 300).astype(np.int32),
        centroids=rng.normal(size=(12, 2)).astype(np.float32),
        id_hashes=rng.integers(0, 2**63, 300).astype(np.uint64),
    )


def test_nearer_clusters_are_likelier_by_the_softmax_of_their_distance():
    chances = by_hand().easy_chance(rows(0), everyone(by_hand()))[0]
    near, far = np.exp(-1) / (np.exp(-1) + np.exp(-3)), np.exp(-3) / (np.exp(-1) + np.exp(-3))
    expected = [0, 0, 0, 0, near / 3, near / 3, near / 3, far / 2, far / 2, 0]
    np.testing.assert_allclose(chances, expected, rtol=1e-12)


def test_a_hard_negative_shares_the_cluster_but_not_the_cell():
    chances = by_hand().hard_chance(rows(0, 2), everyone(by_hand()))
    assert chances[0].tolist() == [0, 0, 1 / 2, 1 / 2, 0, 0, 0, 0, 0, 0]
    assert chances[1].tolist() == [1 / 4, 1 / 4, 0, 1 / 4, 0, 0, 0, 0, 0, 1 / 4]


def test_where_the_cell_is_the_whole_cluster_a_hard_negative_is_an_easy_one():
    found = by_hand()
    hard, easy = (
        chance(rows(0, 7), everyone(found))[1] for chance in (found.hard_chance, found.easy_chance)
    )
    assert (hard == easy).all()
    drawn = found.hard(np.full(DRAWS, 7, dtype=np.int32), 1, np.random.default_rng(1))
    assert_drawn_as_told(drawn, easy)


@pytest.mark.parametrize("rule", ["easy", "hard"])
@pytest.mark.parametrize("make", [by_hand, crowd])
def test_negatives_are_drawn_as_often_as_told(rule, make):
    found = make()
    rng = np.random.default_rng(2)
    for positive in (0, 2, len(found) // 2, len(found) - 1):
        positives = np.full(DRAWS // 4, positive, dtype=np.int32)
        chances = getattr(found, f"{rule}_chance")(rows(positive), everyone(found))[0]
        assert chances.sum() == pytest.approx(1)
        assert_drawn_as_told(getattr(found, rule)(positives, 4, rng), chances)


@pytest.mark.parametrize("make", [by_hand, crowd])
def test_a_budget_shared_by_a_batch_is_drawn_as_the_shared_law_tells(make):
    found = make()
    rng = np.random.default_rng(3)
    batch = rows(0, 0, 2, 7, 9, len(found) - 1)
    shared = found.shared_chance(batch, everyone(found))
    mean = found.easy_chance(batch, everyone(found)).mean(axis=0)
    np.testing.assert_allclose(shared, mean, atol=1e-12)
    pairs = found.easy_pairs(rng.choice(batch, DRAWS), rng)
    assert_drawn_as_told(pairs[:, 0], shared)
    assert_drawn_as_told(pairs[:, 1], shared)


def test_both_of_a_pair_are_of_one_other_cluster_and_different_where_it_has_two():
    found = by_hand(codes1=[0, 0, 1, 1, 1, 2], codes2=[0] * 6)
    positives = rows(0, 1, 2, 5).repeat(500)
    pairs = found.easy_pairs(positives, np.random.default_rng(4))
    clusters = found.codes1[pairs]
    assert (clusters[:, 0] == clusters[:, 1]).all()
    assert (clusters[:, 0] != found.codes1[positives]).all()
    assert ((pairs[:, 0] != pairs[:, 1]) | (clusters[:, 0] == 2)).all()


def test_chances_of_rows_given_per_positive_are_those_of_the_same_rows_shared():
    found = crowd()
    rng = np.random.default_rng(5)
    positives, own = rng.integers(0, 300, 8), rng.integers(0, 300, (8, 5))
    for chance in (found.easy_chance, found.hard_chance, found.same_cell):
        shared = chance(positives, everyone(found))
        assert (chance(positives, own) == np.take_along_axis(shared, own, axis=1)).all()


@pytest.mark.parametrize("make", [by_hand, crowd])
def test_an_item_of_the_positives_own_cell_is_never_drawn(make):
    found = make()
    positives = everyone(found).repeat(20)
    rng = np.random.default_rng(6)
    for drawn in (found.easy(positives, 3, rng), found.hard(positives, 3, rng)):
        assert drawn.shape == (len(positives), 3)
        assert drawn.dtype == np.int32
        assert not found.same_cell(positives, drawn).any()


def test_the_same_cell_is_the_same_two_codes():
    assert by_hand().same_cell(rows(0, 7), rows(1, 2, 8, 9)).tolist() == [
        [True, False, False, True],
        [False, False, True, False],
    ]


def test_with_one_cluster_alone_easy_negatives_come_from_its_other_cells():
    found = by_hand(codes1=[0] * 4, codes2=[0, 0, 1, 2], line=[5])
    for chance in (found.easy_chance, found.hard_chance):
        expected = [[0, 0, 1 / 2, 1 / 2], [1 / 3, 1 / 3, 0, 1 / 3]]
        np.testing.assert_allclose(chance(rows(0, 2), everyone(found)), expected)
    np.testing.assert_allclose(
        found.shared_chance(rows(0, 2), everyone(found)), [1 / 6, 1 / 6, 1 / 4, 5 / 12]
    )
    assert_drawn_as_told(
        found.easy_pairs(np.full(DRAWS, 2, dtype=np.int32), np.random.default_rng(7)),
        found.easy_chance(rows(2), everyone(found))[0],
    )


@pytest.mark.parametrize("rule", ["easy", "hard"])
def test_where_all_items_share_one_cell_the_whole_catalogue_is_drawn_from(rule):
    found = by_hand(codes1=[1] * 4, codes2=[0] * 4)
    drawn = getattr(found, rule)(rows(0, 3), DRAWS, np.random.default_rng(8))
    chances = getattr(found, f"{rule}_chance")(rows(0, 3), everyone(found))
    assert (chances == 1 / 4).all()
    assert_drawn_as_told(drawn, chances[0])
    assert found.same_cell(rows(0, 3), drawn).all()


def test_a_catalogue_of_one_item_draws_that_item():
    found = by_hand(codes1=[0], codes2=[0], line=[1])
    rng = np.random.default_rng(9)
    assert found.easy(rows(0), 2, rng).tolist() == [[0, 0]]
    assert found.hard(rows(0), 2, rng).tolist() == [[0, 0]]
    assert found.easy_pairs(rows(0), rng).tolist() == [[0, 0]]


def test_a_cluster_without_items_is_never_chosen():
    found = by_hand(codes1=[0, 0, 2, 2], codes2=[0] * 4)
    assert (found.codes1[found.easy(rows(0), DRAWS, np.random.default_rng(10))] == 2).all()
    assert found.easy_chance(rows(0), everyone(found)).tolist() == [[0, 0, 1 / 2, 1 / 2]]


def test_clusters_at_one_spot_are_equally_likely():
    found = by_hand(codes1=[0, 1, 2], codes2=[0] * 3, line=[4, 4, 4])
    assert found.easy_chance(rows(0), everyone(found))[0].tolist() == pytest.approx([0, 0.5, 0.5])


def test_the_same_generator_draws_the_same():
    found = crowd()
    for draw in (found.easy, found.hard):
        one, again = (draw(everyone(found), 3, np.random.default_rng(11)) for _ in range(2))
        assert (one == again).all()


def test_the_version_tells_maps_apart_but_not_when_they_were_made():
    one = by_hand(made={"at": "noon"})
    assert one.version == by_hand(made={"at": "dusk"}).version
    others = [
        by_hand(codes2=[*CODES2[:-1], 1]),
        by_hand(line=[0, 1, 4]),
        by_hand(share=0.4),
        by_hand(codes1=[1, *CODES1[1:]]),
    ]
    assert len({one.version, *(other.version for other in others)}) == 5


def test_a_saved_map_opens_as_it_was(tmp_path):
    saved = by_hand(made={"seed": 3, "modalities": ["visual"]})
    save_cluster_map(saved, tmp_path)
    opened = open_cluster_map(tmp_path)
    assert (opened.version, opened.made) == (saved.version, saved.made)
    positives = everyone(saved)
    drawn = [found.hard(positives, 4, np.random.default_rng(12)) for found in (saved, opened)]
    assert (drawn[0] == drawn[1]).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cluster_map.centroids.npy",
        "cluster_map.codes1.npy",
        "cluster_map.codes2.npy",
        "cluster_map.id_hashes.npy",
        "cluster_map.json",
    ]


def test_all_missing_files_of_a_map_are_told_together(tmp_path):
    save_cluster_map(by_hand(), tmp_path)
    (tmp_path / "cluster_map.json").unlink()
    (tmp_path / "cluster_map.codes1.npy").write_bytes(b"")
    with pytest.raises(InvalidClusterMapError, match=r"(?s)2 faults.*map.json.*codes1.npy"):
        open_cluster_map(tmp_path)


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("codes1", np.full(10, 7, np.int32), "codes1 points outside the 3 centroids"),
        ("codes2", np.full(10, -1, np.int32), "codes2 lies outside"),
        ("codes2", np.zeros(9, np.int32), r"codes2 is .*9.*expected .*10"),
        ("codes2", np.zeros(10, np.int32), "the arrays are version"),
        ("centroids", np.full((3, 1), np.nan, np.float32), "not finite"),
        ("centroids", np.zeros((3, 1)), "float64"),
        ("id_hashes", np.zeros(10, np.int64), "expected .*uint64"),
    ],
)
def test_an_array_that_does_not_fit_the_others_is_refused(tmp_path, name, values, told):
    save_cluster_map(by_hand(), tmp_path)
    np.save(tmp_path / f"cluster_map.{name}.npy", values)
    with pytest.raises(InvalidClusterMapError, match=told):
        open_cluster_map(tmp_path)


def test_pickled_arrays_are_not_opened(tmp_path):
    save_cluster_map(by_hand(), tmp_path)
    np.save(tmp_path / "cluster_map.codes1.npy", np.array([{}], dtype=object))
    with pytest.raises(InvalidClusterMapError, match=r"codes1\.npy: cannot be read"):
        open_cluster_map(tmp_path)


def test_a_card_with_an_unknown_key_is_refused(tmp_path):
    save_cluster_map(by_hand(), tmp_path)
    path = tmp_path / "cluster_map.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "red"}))
    with pytest.raises(InvalidClusterMapError, match="colour"):
        open_cluster_map(tmp_path)


def test_a_map_without_items_is_a_mistake():
    with pytest.raises(ValueError, match="no item"):
        by_hand(codes1=[], codes2=[])


def test_joining_takes_codes_by_id_in_any_order_and_may_leave_a_cluster_empty():
    found = join(by_hand(), hashes(["item-9", "item-7", "item-2"]))
    assert found.codes1.tolist() == [0, 2, 0]
    assert found.codes2.tolist() == [0, 3, 1]
    assert (found.centroids == by_hand().centroids).all()
    assert found.easy_chance(rows(0), everyone(found)).tolist() == [[0, 1, 0]]
    assert found.made == {"joined_from": by_hand().version, "unknown_items": 0}


def test_joining_puts_items_that_the_map_does_not_know_into_a_cluster_at_the_origin():
    found = join(by_hand(line=[1, 2, 4]), hashes(["new", "item-0", "item-4", "newer"]))
    assert found.codes1.tolist() == [3, 0, 1, 3]
    assert found.centroids[3].tolist() == [0]
    assert found.hard_chance(rows(0), everyone(found))[0][[0, 3]].tolist() == [0, 0]
    assert found.easy_chance(rows(1), everyone(found))[0].argmin() == 1
    assert found.made["unknown_items"] == 2


def test_a_map_with_two_items_of_one_hash_is_not_joined():
    twins = by_hand()
    twins.id_hashes[4] = twins.id_hashes[1]
    with pytest.raises(InvalidClusterMapError, match="rows 1 and 4 share an id hash"):
        join(twins, twins.id_hashes)
