import json

import numpy as np
import pyarrow as pa
import pytest

from index.errors import ConfigError
from index.ingest.published_columns import item_metadata
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
    columns |= changes
    return pa.table({name: values for name, values in columns.items() if values is not None})


def metadata_of(config=None, **changes):
    world = table(**changes)
    return item_metadata(world, choose_columns(world, config or BundleConfig()))


def rows_with(metadata, attribute, *values):
    postings = metadata.filters.get(attribute, values)
    return [None if rows is None else rows.tolist() for rows in postings]


def test_choose_columns_defaults_to_filterable_types():
    metadata = metadata_of()
    assert metadata.filter_counts == {"colour": 2, "year": 2, "is_new": 2, "genres": 2}
    assert rows_with(metadata, "colour", "red", "blue", "") == [[0, 3], [1, 5], None]
    assert rows_with(metadata, "year", "1999", "2001", "1999.0") == [[0, 2, 4], [1, 5], None]
    assert rows_with(metadata, "is_new", "true", "false", "True") == [[0, 2, 4, 5], [1], None]
    assert rows_with(metadata, "genres", "drama", "crime") == [[0, 1, 5], [1, 4]]


def test_attributes_omit_item_id_and_missing_values():
    metadata = metadata_of()
    assert metadata.names == ["title", "colour", "year", "is_new", "genres", "price"]
    first, _, third, *_ = map(json.loads, metadata.attributes.get(np.arange(COUNT)))
    assert first == {
        "title": "title 0",
        "colour": "red",
        "year": 1999,
        "is_new": True,
        "genres": ["drama"],
        "price": 1.5,
    }
    assert third == {"title": "title 2", "year": 1999, "is_new": True, "price": 2.0}


def test_choose_columns_named_excludes_the_rest():
    metadata = metadata_of(BundleConfig(filters=("title",), attributes=("price",)))
    assert metadata.filter_counts == {"title": COUNT}
    assert metadata.names == ["price"]


def test_choose_columns_star_adds_the_rest():
    metadata = metadata_of(BundleConfig(filters=("title", "*"), attributes=()))
    assert list(metadata.filter_counts) == ["title", "colour", "year", "is_new", "genres"]
    assert (metadata.names, metadata.attributes) == ([], None)


def test_star_skips_high_cardinality_filters():
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


def test_filter_on_all_null_column_has_no_values():
    metadata = metadata_of(BundleConfig(filters=("mood",)), mood=pa.nulls(COUNT, pa.string()))
    assert (metadata.filter_counts, metadata.filters) == ({"mood": 0}, None)


def test_choose_columns_ids_only_publishes_nothing():
    world = pa.table({"item_id": ["a", "b"]})
    metadata = item_metadata(world, choose_columns(world, BundleConfig()))
    assert (metadata.names, metadata.attributes, metadata.filters) == ([], None, None)


def test_choose_columns_accepts_dictionary_text():
    coded = pa.array(["red", "blue", None, "red", "", "blue"]).dictionary_encode()
    metadata = metadata_of(BundleConfig(filters=("colour",)), colour=coded)
    assert rows_with(metadata, "colour", "red", "blue") == [[0, 3], [1, 5]]


def test_choose_columns_reports_all_unusable_columns():
    config = BundleConfig(filters=("price", "lost", "colour"), attributes=("picture", "item_id"))
    with pytest.raises(ConfigError) as caught:
        choose_columns(table(picture=[b"x"] * COUNT), config)
    faults = str(caught.value).splitlines()
    assert len(faults) == 4
    assert "bundle.attributes: column 'picture'" in faults[0]
    assert "unsupported type binary" in faults[0]
    assert "bundle.attributes: column 'item_id'" in faults[1]
    assert "bundle.filters: column 'price'" in faults[2]
    assert "unsupported type double" in faults[2]
    assert "bundle.filters: column 'lost'" in faults[3]
    assert "does not exist; expected one of title, colour" in faults[3]
