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
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_world(folder)
    return load_dataset(folder)


def test_codes_of_equal_size_have_as_much_perplexity_as_there_are_codes():
    assert measure_level(np.arange(60) % 5).perplexity == pytest.approx(5)
    collapsed = measure_level(np.array([0] * 97 + [1, 2, 3]))
    assert collapsed.used == 4
    assert collapsed.perplexity < 1.2
    assert collapsed.quantiles == (1, 1, 1, 25, 97)


def test_an_item_is_alone_where_nobody_shares_its_cell():
    assert singleton_share(np.array([0, 0, 1, 2])) == 0.5


def test_codes_that_are_the_labels_agree_fully_and_chance_hardly():
    labels = np.arange(1_000) % 4
    chance = np.random.default_rng(0).integers(0, 50, 1_000)
    same, none = mutual_information(labels + 7, labels), mutual_information(chance, labels)
    assert same == pytest.approx((1, 1))
    normalised, adjusted = none
    assert abs(adjusted) < 0.01 < normalised


def test_a_likely_column_is_guessed_and_the_one_asked_for_is_taken(tmp_path):
    sold = items(Genres=["x|y", "x", "", "z"], shade=["a", "b", "c", "d"])
    data = load_dataset(write_shop(tmp_path, sold=sold))
    assert category_column(data.attributes, None) == "Genres"
    assert category_column(data.attributes, "shade") == "shade"
    with pytest.raises(ConfigError, match="no column 'weight'"):
        category_column(data.attributes, "weight")


def test_without_a_likely_column_none_is_guessed(tmp_path):
    assert category_column(load_dataset(write_shop(tmp_path)).attributes, None) is None


def test_the_first_of_several_values_is_the_label_and_an_empty_one_is_none(tmp_path):
    sold = items(genre=["x|y", "x", None, "z"])
    rows, labels = load_labels(load_dataset(write_shop(tmp_path, sold=sold)), "genre")
    assert rows.tolist() == [0, 1, 3]
    assert labels.tolist() == [0, 0, 1]


def test_pairs_are_two_different_items_of_one_history(world):
    one, other = sample_history_pairs(world, np.random.default_rng(0))
    assert (one != other).all()
    assert (one % 2 == other % 2).all()  # users take only items of their parity
    assert len(set(one.tolist())) == 40


def test_held_out_items_are_paired_with_a_past_of_the_same_user(world):
    one, other = sample_held_out_pairs(world, np.random.default_rng(0))
    assert len(one) == 60
    assert (one != other).all()
    assert (one % 2 == other % 2).all()


def test_items_of_one_history_always_share_a_planted_code_and_random_ones_half_the_time(world):
    found = measure_code_sharing(PARITY, world, np.random.default_rng(0))
    assert (found["same history"], found["history and held out"]) == (1, 1)
    assert found["random interactions"] == pytest.approx(0.5, abs=0.01)
    assert found["random items"] == pytest.approx(2 * 20 * 19 / (40 * 39))


def test_histories_of_one_item_have_no_pairs(tmp_path):
    taken = {
        "user_id": ["a", "a", "a", "b", "b", "b"],
        "item_id": ["a", "b", "c", "b", "c", "d"],
        "timestamp": [1, 2, 3, 1, 2, 3],
    }
    data = load_dataset(write_shop(tmp_path, taken))
    assert sample_history_pairs(data, np.random.default_rng(0)).shape == (2, 0)
    found = measure_code_sharing(np.zeros(4, int), data, np.random.default_rng(0))
    assert np.isnan(found["same history"])


def test_the_first_of_several_values_is_the_label():
    listed = pa.table({"genres": [["x", "y"], [], None, ["z"]]})
    assert first_labels(listed, "genres") == ["x", None, None, "z"]
    spelled = pa.table({"genres": ["x|y", "", None, "z"]})
    assert first_labels(spelled, "genres") == ["x", None, None, "z"]


def test_an_item_is_named_by_its_title_else_by_its_id():
    assert title_column(pa.table({"item_id": ["a"], "Title": ["b"]})) == "Title"
    assert title_column(pa.table({"item_id": ["a"], "price": [1]})) == "item_id"


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
    return describe_cluster_map(of_two_clusters(data), data, None, np.random.default_rng(0))


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
