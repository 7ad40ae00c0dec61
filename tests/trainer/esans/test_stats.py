import numpy as np
import pyarrow as pa
import pytest

from index.cluster_map import ClusterMap
from index.errors import ConfigError
from index.ids import hash_ids
from tests.support.tiny_dataset import write_tiny_world
from tests.support.training_shops import items, write_shop
from trainer.data.dataset import load_dataset
from trainer.esans.stats import (
    category_column,
    describe_cluster_map,
    first_labels,
    load_labels,
    measure_code_sharing,
    measure_level,
    mutual_information,
    sample_held_out_pairs,
    sample_history_pairs,
    singleton_share,
    title_column,
)

PARITY = np.arange(40, dtype=np.int32) % 2


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_world(folder)
    return load_dataset(folder)


def test_measure_level_equal_sizes_perplexity_is_num_codes():
    assert measure_level(np.arange(60) % 5).perplexity == pytest.approx(5)
    collapsed = measure_level(np.array([0] * 97 + [1, 2, 3]))
    assert collapsed.used == 4
    assert collapsed.perplexity < 1.2
    assert collapsed.quantiles == (1, 1, 1, 25, 97)


def test_singleton_share_counts_items_alone_in_cell():
    assert singleton_share(np.array([0, 0, 1, 2])) == 0.5


def test_mutual_information_is_1_for_equal_labels():
    labels = np.arange(1_000) % 4
    chance = np.random.default_rng(0).integers(0, 50, 1_000)
    same, none = mutual_information(labels + 7, labels), mutual_information(chance, labels)
    assert same == pytest.approx((1, 1))
    normalised, adjusted = none
    assert abs(adjusted) < 0.01 < normalised


def test_category_column_prefers_requested_column(tmp_path):
    catalogue = items(Genres=["x|y", "x", "", "z"], shade=["a", "b", "c", "d"])
    data = load_dataset(write_shop(tmp_path, sold=catalogue))
    assert category_column(data.attributes, None) == "Genres"
    assert category_column(data.attributes, "shade") == "shade"
    with pytest.raises(ConfigError, match="no column 'weight'"):
        category_column(data.attributes, "weight")


def test_category_column_without_candidate_is_none(tmp_path):
    assert category_column(load_dataset(write_shop(tmp_path)).attributes, None) is None


def test_load_labels_skips_empty_values(tmp_path):
    catalogue = items(genre=["x|y", "x", None, "z"])
    rows, labels = load_labels(load_dataset(write_shop(tmp_path, sold=catalogue)), "genre")
    assert rows.tolist() == [0, 1, 3]
    assert labels.tolist() == [0, 0, 1]


def test_sample_history_pairs_are_distinct_items(dataset):
    left, right = sample_history_pairs(dataset, np.random.default_rng(0))
    assert (left != right).all()
    assert (left % 2 == right % 2).all()  # users have only items of their parity
    assert len(set(left.tolist())) == 40


def test_sample_held_out_pairs_use_history_of_same_user(dataset):
    left, right = sample_held_out_pairs(dataset, np.random.default_rng(0))
    assert len(left) == 60
    assert (left != right).all()
    assert (left % 2 == right % 2).all()


def test_measure_code_sharing_of_planted_groups(dataset):
    shares = measure_code_sharing(PARITY, dataset, np.random.default_rng(0))
    assert (shares["same history"], shares["history and held out"]) == (1, 1)
    assert shares["random interactions"] == pytest.approx(0.5, abs=0.01)
    assert shares["random items"] == pytest.approx(2 * 20 * 19 / (40 * 39))


def test_sample_history_pairs_single_item_histories_are_empty(tmp_path):
    interactions = {
        "user_id": ["a", "a", "a", "b", "b", "b"],
        "item_id": ["a", "b", "c", "b", "c", "d"],
        "timestamp": [1, 2, 3, 1, 2, 3],
    }
    data = load_dataset(write_shop(tmp_path, interactions))
    assert sample_history_pairs(data, np.random.default_rng(0)).shape == (2, 0)
    shares = measure_code_sharing(np.zeros(4, int), data, np.random.default_rng(0))
    assert np.isnan(shares["same history"])


def test_first_labels_takes_first_of_several_values():
    listed = pa.table({"genres": [["x", "y"], [], None, ["z"]]})
    assert first_labels(listed, "genres") == ["x", None, None, "z"]
    spelled = pa.table({"genres": ["x|y", "", None, "z"]})
    assert first_labels(spelled, "genres") == ["x", None, None, "z"]
    empty = pa.table({"genres": ["|y", "", "|"]})
    assert first_labels(empty, "genres") == [None, None, None]


def test_title_column_falls_back_to_item_id():
    assert title_column(pa.table({"item_id": ["a"], "Title": ["b"]})) == "Title"
    assert title_column(pa.table({"item_id": ["a"], "price": [1]})) == "item_id"


def two_clusters(data):
    return ClusterMap(
        codes1=np.array([0, 0, 1, 1], dtype=np.int32),
        codes2=np.array([0, 1, 0, 0], dtype=np.int32),
        centroids=np.eye(2, dtype=np.float32),
        id_hashes=hash_ids(left.encode() for left in data.item_ids),
        made={"items_with": {"visual": 4}},
    )


def describe(tmp_path, **columns):
    tmp_path.mkdir(exist_ok=True)
    data = load_dataset(write_shop(tmp_path, sold=items(**columns)))
    return describe_cluster_map(two_clusters(data), data, None, np.random.default_rng(0))


def test_describe_states_modalities_and_singletons(tmp_path):
    text = describe(tmp_path)
    assert "4 items, made of visual (4)" in text
    assert "items alone in their cell: 50.0%" in text


def test_describe_lists_titles_by_cluster(tmp_path):
    first, second = describe(tmp_path).split("cluster 0, 2 items")[1].split("cluster 1, 2 items")
    assert [line.split() for line in first.splitlines()[1:3]] == [["0", "A"], ["1", "B"]]
    assert [line.split() for line in second.splitlines()[1:3]] == [["0", "C"], ["0", "D"]]


def test_describe_without_titles_lists_ids(tmp_path):
    assert "(code, item_id)" in describe(tmp_path, title=None)


def test_describe_lists_id_of_item_without_title(tmp_path):
    text = describe(tmp_path, title=["A", None, "", "D"])
    assert "1  b\n" in text
    assert "0  c\n" in text
    assert "None" not in text


def test_describe_reports_agreement_or_missing_category(tmp_path):
    assert "no category column found" in describe(tmp_path / "a")
    text = describe(tmp_path / "b", category=["x", "x", "y", "y"])
    assert "agreement with category (2 values, 4 items)" in text
    assert "1.000" in text
