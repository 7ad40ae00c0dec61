import json

import numpy as np
import pyarrow as pa
import pytest

from index.errors import ConfigError
from index.ingest.tables import item_metadata
from trainer.bundle_export import DISTINCT_LIMIT, choose_columns
from trainer.config import BundleConfig

COUNT = 6
GENRES = [["drama"], ["drama", "crime"], None, [], ["crime", None, ""], ["drama", "drama"]]


def table(**changes):
    columns = {
        "item_id": [f"item-{row}" for row in range(COUNT)],
        "title": [f"title {row}" for row in range(COUNT)],
        "colour": ["red", "blue", None, "red", "", "blue"],
        "year": pa.array([1999, 2001, 1999, None, 1999, 2001], pa.int16()),
        "is_new": [True, False, True, None, True, True],
        "genres": pa.array(GENRES, pa.list_(pa.string())),
        "price": [1.5, float("nan"), 2.0, None, 3.0, 1.5],
    }
    return pa.table({name: one for name, one in (columns | changes).items() if one is not None})


def described(config=None, **changes):
    world = table(**changes)
    return item_metadata(world, choose_columns(world, config or BundleConfig()))


def rows_with(made, attribute, *values):
    lists = made.filters.get(attribute, values)
    return [None if one is None else one.tolist() for one in lists]


def test_text_integers_booleans_and_lists_of_text_are_filtered_by():
    made = described()
    assert made.filter_counts == {"colour": 2, "year": 2, "is_new": 2, "genres": 2}
    assert rows_with(made, "colour", "red", "blue", "") == [[0, 3], [1, 5], None]
    assert rows_with(made, "year", "1999", "2001", "1999.0") == [[0, 2, 4], [1, 5], None]
    assert rows_with(made, "is_new", "true", "false", "True") == [[0, 2, 4, 5], [1], None]
    assert rows_with(made, "genres", "drama", "crime") == [[0, 1, 5], [1, 4]]


def test_all_but_the_id_is_told_and_what_is_missing_is_left_out():
    made = described()
    assert made.names == ["title", "colour", "year", "is_new", "genres", "price"]
    first, _, third, *_ = map(json.loads, made.attributes.get(np.arange(COUNT)))
    assert first == {
        "title": "title 0",
        "colour": "red",
        "year": 1999,
        "is_new": True,
        "genres": ["drama"],
        "price": 1.5,
    }
    assert third == {"title": "title 2", "year": 1999, "is_new": True, "price": 2.0}


def test_only_what_is_named_is_published():
    made = described(BundleConfig(filters=("title",), attributes=("price",)))
    assert made.filter_counts == {"title": COUNT}
    assert made.names == ["price"]


def test_a_star_stands_for_the_rest():
    made = described(BundleConfig(filters=("title", "*"), attributes=()))
    assert list(made.filter_counts) == ["title", "colour", "year", "is_new", "genres"]
    assert (made.names, made.attributes) == ([], None)


def test_a_column_of_many_values_is_not_filtered_by_unless_it_is_named():
    count = 2 * DISTINCT_LIMIT + 2
    world = pa.table(
        {
            "item_id": [str(row) for row in range(count)],
            "many": [str(row // 2) for row in range(count)],
            "fewer": [str(row % DISTINCT_LIMIT) for row in range(count)],
            "dates": pa.array(range(count), pa.date32()),
        }
    )
    assert choose_columns(world, BundleConfig()).filters == ["fewer"]
    named = choose_columns(world, BundleConfig(filters=("many",)))
    assert item_metadata(world, named).filter_counts == {"many": DISTINCT_LIMIT + 1}
    assert b'"dates":"1970-01-02"' in item_metadata(world, named).attributes.get(np.array([1]))[0]


def test_an_attribute_that_no_item_has_is_known_and_without_values():
    made = described(BundleConfig(filters=("mood",)), mood=pa.nulls(COUNT, pa.string()))
    assert (made.filter_counts, made.filters) == ({"mood": 0}, None)


def test_a_table_of_ids_alone_is_told_nothing_of():
    world = pa.table({"item_id": ["a", "b"]})
    made = item_metadata(world, choose_columns(world, BundleConfig()))
    assert (made.names, made.attributes, made.filters) == ([], None, None)


def test_text_by_a_dictionary_is_text():
    coded = pa.array(["red", "blue", None, "red", "", "blue"]).dictionary_encode()
    made = described(BundleConfig(filters=("colour",)), colour=coded)
    assert rows_with(made, "colour", "red", "blue") == [[0, 3], [1, 5]]


def test_all_columns_that_cannot_be_are_told_at_once():
    asked = BundleConfig(filters=("price", "lost", "colour"), attributes=("picture", "item_id"))
    with pytest.raises(ConfigError) as caught:
        choose_columns(table(picture=[b"x"] * COUNT), asked)
    told = str(caught.value).splitlines()
    assert len(told) == 4
    assert "bundle.attributes: 'picture' is of type binary" in told[0]
    assert "'item_id' is no such column" in told[1]
    assert "bundle.filters: 'price' is of type double" in told[2]
    assert "'lost' is no such column of the items table; fit are title, colour" in told[3]
