import json

import numpy as np
import pytest

from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.bundle.validation import attribute_faults, filter_faults
from index.errors import InvalidBundleError
from index.metadata import Column, ItemMetadata, build_attributes, build_filters
from tests.support.synthetic_bundle import ITEM_COUNT, publish_handmade, update_digests


def rows(*values):
    return np.array(values, dtype=np.int32)


def test_attributes_are_json_of_each_item(tiny_bundle):
    even, odd = (json.loads(encoded) for encoded in tiny_bundle.attributes.get(rows(4, 7)))
    assert even == {"title": "thing 4 ☃"}  # None is left out
    assert odd == {"title": "thing 7 ☃", "odd": True}
    assert tiny_bundle.manifest.attributes == ["title", "odd"]
    assert len(tiny_bundle.attributes) == ITEM_COUNT


def test_filters_return_rows_of_value(tiny_bundle):
    even, none, odd = tiny_bundle.filters.get("parity", ["even", "neither", "odd"])
    assert (even.tolist(), none) == (list(range(0, 40, 2)), None)
    assert odd.tolist() == list(range(1, 40, 2))
    counts = {"parity": 2, "hundred": 1, "tags": 5, "odd": 1, "mood": 0}
    assert tiny_bundle.manifest.filters == counts


def test_filters_item_with_many_or_no_values(tiny_bundle):
    two, four = tiny_bundle.filters.get("tags", ["tag 2", "tag 4"])
    expected = [row for row in range(40) if 2 in (row % 3, row % 5) and row != 3]
    assert two.tolist() == expected  # item 17 has it twice but is listed once
    assert 3 not in [*two, *four]


def test_filters_value_of_other_attribute_is_none(tiny_bundle):
    assert tiny_bundle.filters.get("hundred", ["even"]) == [None]
    assert tiny_bundle.filters.get("lost", ["even"]) == [None]


def test_open_bundle_without_metadata(tmp_path):
    publish_handmade(tmp_path, with_metadata=False)
    bundle = open_bundle(BundleRegistry(tmp_path).current())
    assert (bundle.attributes, bundle.filters) == (None, None)
    assert (bundle.manifest.attributes, bundle.manifest.filters) == ([], {})


def test_attributes_replace_values_unknown_to_json():
    encoded = build_attributes(
        [{"a": float("nan"), "b": 1.5, "c": None, "d": [1, "x"], "e": 2 + 1j}, {}]
    )
    assert encoded.get(rows(0, 1)) == [b'{"b":1.5,"d":[1,"x"],"e":"(2+1j)"}', b"{}"]


def test_attributes_replace_nested_nan_by_null():
    deep = {"a": [1.5, float("nan")], "b": {"c": [{"d": float("-inf")}, None]}}
    (encoded,) = build_attributes([deep]).get(rows(0))
    assert encoded == b'{"a":[1.5,null],"b":{"c":[{"d":null},null]}}'


def test_attributes_concat_appends_items():
    first, second = build_attributes([{"a": 1}]), build_attributes([{}, {"a": 2}])
    both = first.concat(second)
    assert both.get(rows(0, 1, 2)) == [b'{"a":1}', b"{}", b'{"a":2}']
    assert attribute_faults(both, 3) == []


def test_metadata_concat_joins_postings():
    first = build_filters(
        {"a": Column(["x", "y"], rows(0, 1), rows(0, 1)), "b": Column(["1"], rows(1), rows(0))}
    )
    second = build_filters({"a": Column(["z", "y"], rows(0, 1, 1), rows(0, 1, 1))})
    metadata = ItemMetadata(filter_counts={"a": 2, "b": 1}, filters=first)
    both = metadata.concat(ItemMetadata(filters=second), 2).filters
    assert [rows.tolist() for rows in both.get("a", ["x", "y", "z"])] == [[0], [1, 3], [2]]
    assert both.get("b", ["1"])[0].tolist() == [1]
    assert filter_faults(both, 4, {"a": 3, "b": 1}) == []


def change_array(folder, name, change):
    array = np.load(folder / name)
    np.save(folder / name, change(array))
    update_digests(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("attributes.offsets.npy", lambda array: array[:-1], "is for 39 items, expected 40"),
        ("attributes.offsets.npy", lambda array: array + 1, "does not split"),
        ("attributes.offsets.npy", lambda array: array * (array > 99), "does not split"),
        ("attributes.blob.npy", lambda array: array[::-1], "row 0 is not a JSON object"),
        ("filters.offsets.npy", lambda array: array[:-1], r"filters.offsets.npy holds \d+"),
        ("filters.offsets.npy", lambda array: array[::-1], "cover their rows: False"),
        ("filters.rows.npy", lambda array: array + 1, "within the items: False"),
        ("filters.rows.npy", lambda array: array - 1, "within the items: False"),
        ("filters.rows.npy", lambda array: array[::-1], "ascending in each list: False"),
        ("filter_values.blob.npy", lambda array: array | 0x80, "text that is not UTF-8"),
        ("filter_values.blob.npy", lambda array: np.where(array == 0, 65, array), "values holds {"),
    ],
)
def test_open_bundle_inconsistent_metadata_raises(bundle_copy, name, change, message):
    change_array(bundle_copy, name, lambda array: change(array).astype(array.dtype))
    with pytest.raises(InvalidBundleError, match=message):
        open_bundle(bundle_copy)
