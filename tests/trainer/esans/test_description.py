import numpy as np

from index.cluster_map import ClusterMap
from index.ids import hash_ids
from tests.trainer.shops import items, write_shop
from trainer.data.dataset import load_dataset
from trainer.esans.description import describe


def of_two_clusters(data):
    return ClusterMap(
        codes1=np.array([0, 0, 1, 1], dtype=np.int32),
        codes2=np.array([0, 1, 0, 0], dtype=np.int32),
        centroids=np.eye(2, dtype=np.float32),
        id_hashes=hash_ids(one.encode() for one in data.item_ids),
        made={"items_with": {"visual": 4}},
    )


def told_of(tmp_path, **columns):
    tmp_path.mkdir(exist_ok=True)
    data = load_dataset(write_shop(tmp_path, sold=items(**columns)))
    return describe(of_two_clusters(data), data, None, np.random.default_rng(0))


def test_a_description_names_what_the_map_is_of_and_how_it_divides(tmp_path):
    told = told_of(tmp_path)
    assert "4 items, made of visual (4)" in told
    assert "items alone in their cell: 50.0%" in told


def test_every_title_of_a_small_map_is_shown_under_its_cluster(tmp_path):
    first, second = told_of(tmp_path).split("cluster 0, 2 items")[1].split("cluster 1, 2 items")
    assert [line.split() for line in first.splitlines()[1:3]] == [["0", "A"], ["1", "B"]]
    assert [line.split() for line in second.splitlines()[1:3]] == [["0", "C"], ["0", "D"]]


def test_without_titles_ids_are_shown(tmp_path):
    assert "(code, item_id)" in told_of(tmp_path, title=None)


def test_agreement_is_told_where_there_is_a_category_and_its_lack_where_there_is_none(tmp_path):
    assert "no category column found" in told_of(tmp_path / "a")
    told = told_of(tmp_path / "b", category=["x", "x", "y", "y"])
    assert "agreement with category (2 values, 4 items)" in told
    assert "1.000" in told
