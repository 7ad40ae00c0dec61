import numpy as np
import pytest

from index.errors import ConfigError
from tests.tiny_world import write_tiny_world
from tests.trainer.shops import items, write_shop
from trainer.data.dataset import load_dataset
from trainer.esans.columns import category_column
from trainer.esans.figures import (
    agreement,
    labels_of,
    level_of,
    pairs_held_out,
    pairs_of_history,
    share_alone,
    togetherness,
)

PARITY = np.arange(40, dtype=np.int32) % 2


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_world(folder)
    return load_dataset(folder)


def test_codes_of_equal_size_have_as_much_perplexity_as_there_are_codes():
    assert level_of(np.arange(60) % 5).perplexity == pytest.approx(5)
    collapsed = level_of(np.array([0] * 97 + [1, 2, 3]))
    assert collapsed.used == 4
    assert collapsed.perplexity < 1.2
    assert collapsed.quantiles == (1, 1, 1, 25, 97)


def test_an_item_is_alone_where_nobody_shares_its_cell():
    assert share_alone(np.array([0, 0, 1, 2])) == 0.5


def test_codes_that_are_the_labels_agree_fully_and_chance_hardly():
    labels = np.arange(1_000) % 4
    chance = np.random.default_rng(0).integers(0, 50, 1_000)
    same, none = agreement(labels + 7, labels), agreement(chance, labels)
    assert (same.normalised, same.adjusted) == pytest.approx((1, 1))
    assert abs(none.adjusted) < 0.01 < none.normalised


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
    rows, labels = labels_of(load_dataset(write_shop(tmp_path, sold=sold)), "genre")
    assert rows.tolist() == [0, 1, 3]
    assert labels.tolist() == [0, 0, 1]


def test_pairs_are_two_different_items_of_one_history(world):
    one, other = pairs_of_history(world, np.random.default_rng(0))
    assert (one != other).all()
    assert (one % 2 == other % 2).all()  # users take only items of their parity
    assert len(set(one.tolist())) == 40


def test_held_out_items_are_paired_with_a_past_of_the_same_user(world):
    one, other = pairs_held_out(world, np.random.default_rng(0))
    assert len(one) == 60
    assert (one != other).all()
    assert (one % 2 == other % 2).all()


def test_items_of_one_history_always_share_a_planted_code_and_random_ones_half_the_time(world):
    found = togetherness(PARITY, world, np.random.default_rng(0))
    assert (found.one_history, found.held_out) == (1, 1)
    assert found.random_takes == pytest.approx(0.5, abs=0.01)
    assert found.random_items == pytest.approx(2 * 20 * 19 / (40 * 39))


def test_histories_of_one_item_have_no_pairs(tmp_path):
    taken = {
        "user_id": ["a", "a", "a", "b", "b", "b"],
        "item_id": ["a", "b", "c", "b", "c", "d"],
        "timestamp": [1, 2, 3, 1, 2, 3],
    }
    data = load_dataset(write_shop(tmp_path, taken))
    assert pairs_of_history(data, np.random.default_rng(0)).shape == (2, 0)
    assert np.isnan(togetherness(np.zeros(4, int), data, np.random.default_rng(0)).one_history)
