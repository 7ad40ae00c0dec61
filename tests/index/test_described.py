import json

import numpy as np
import pytest

from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.bundle.validation import attribute_faults, filter_faults
from index.errors import InvalidBundleError
from index.metadata import Column, ItemMetadata, build_attributes, build_filters
from tests.index.test_bundle import sign_again
from tests.support.synthetic_bundle import ITEM_COUNT, publish_handmade


def rows(*values):
    return np.array(values, dtype=np.int32)


def test_a_bundle_tells_each_items_attributes_as_json(tiny_bundle):
    even, odd = (json.loads(one) for one in tiny_bundle.attributes.of(rows(4, 7)))
    assert even == {"title": "thing 4 ☃"}  # what is missing is left out
    assert odd == {"title": "thing 7 ☃", "odd": True}
    assert tiny_bundle.manifest.attributes == ["title", "odd"]
    assert len(tiny_bundle.attributes) == ITEM_COUNT


def test_a_bundle_tells_which_items_have_a_value(tiny_bundle):
    even, none, odd = tiny_bundle.filters.of("parity", ["even", "neither", "odd"])
    assert (even.tolist(), none) == (list(range(0, 40, 2)), None)
    assert odd.tolist() == list(range(1, 40, 2))
    counts = {"parity": 2, "hundred": 1, "tags": 5, "odd": 1, "mood": 0}
    assert tiny_bundle.manifest.filters == counts


def test_an_item_may_have_many_values_or_none(tiny_bundle):
    two, four = tiny_bundle.filters.of("tags", ["tag 2", "tag 4"])
    expected = [row for row in range(40) if 2 in (row % 3, row % 5) and row != 3]
    assert two.tolist() == expected  # item 17 has it twice over, and stands there once
    assert 3 not in [*two, *four]


def test_a_value_of_one_attribute_is_none_of_another(tiny_bundle):
    assert tiny_bundle.filters.of("hundred", ["even"]) == [None]
    assert tiny_bundle.filters.of("lost", ["even"]) == [None]


def test_a_bundle_may_come_without_attributes_and_filters(tmp_path):
    publish_handmade(tmp_path, with_described=False)
    bundle = open_bundle(BundleRegistry(tmp_path).current())
    assert (bundle.attributes, bundle.filters) == (None, None)
    assert (bundle.manifest.attributes, bundle.manifest.filters) == ([], {})


def test_what_json_cannot_say_is_left_out_or_becomes_text():
    told = build_attributes(
        [{"a": float("nan"), "b": 1.5, "c": None, "d": [1, "x"], "e": 2 + 1j}, {}]
    )
    assert told.of(rows(0, 1)) == [b'{"b":1.5,"d":[1,"x"],"e":"(2+1j)"}', b"{}"]


def test_what_json_cannot_say_within_lists_and_objects_is_null():
    deep = {"a": [1.5, float("nan")], "b": {"c": [{"d": float("-inf")}, None]}}
    (told,) = build_attributes([deep]).of(rows(0))
    assert told == b'{"a":[1.5,null],"b":{"c":[{"d":null},null]}}'


def test_the_items_of_a_second_part_follow_those_of_the_first():
    first, second = build_attributes([{"a": 1}]), build_attributes([{}, {"a": 2}])
    both = first.extended(second)
    assert both.of(rows(0, 1, 2)) == [b'{"a":1}', b"{}", b'{"a":2}']
    assert attribute_faults(both, 3) == []


def test_the_lists_of_two_parts_become_one():
    first = build_filters(
        {
            "a": Column(["x", "y"], rows(0, 1), rows(0, 1)),
            "b": Column(["1"], rows(1), rows(0)),
        }
    )
    second = build_filters({"a": Column(["z", "y"], rows(0, 1, 1), rows(0, 1, 1))})
    metadata = ItemMetadata(filter_counts={"a": 2, "b": 1}, filters=first)
    both = metadata.extended(ItemMetadata(filters=second), 2).filters
    assert [one.tolist() for one in both.of("a", ["x", "y", "z"])] == [[0], [1, 3], [2]]
    assert both.of("b", ["1"])[0].tolist() == [1]
    assert filter_faults(both, 4, {"a": 3, "b": 1}) == []


def spoil(folder, name, change):
    array = np.load(folder / name)
    np.save(folder / name, change(array))
    sign_again(folder)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("attributes.offsets.npy", lambda one: one[:-1], "is for 39 items, expected 40"),
        ("attributes.offsets.npy", lambda one: one + 1, "does not lead from 0"),
        ("attributes.offsets.npy", lambda one: one * (one > 99), "does not lead from 0"),
        ("attributes.blob.npy", lambda one: one[::-1], "row 0 is no JSON object"),
        ("filters.offsets.npy", lambda one: one[:-1], r"filters.offsets.npy holds \d+"),
        ("filters.offsets.npy", lambda one: one[::-1], "cover their rows: False"),
        ("filters.rows.npy", lambda one: one + 1, "within the items: False"),
        ("filters.rows.npy", lambda one: one - 1, "within the items: False"),
        ("filters.rows.npy", lambda one: one[::-1], "ascends in each list: False"),
        ("filter_values.blob.npy", lambda one: one | 0x80, "what is no UTF-8"),
        ("filter_values.blob.npy", lambda one: np.where(one == 0, 65, one), "values holds {"),
    ],
)
def test_files_that_disagree_are_refused_by_name(copied, name, change, told):
    spoil(copied, name, lambda one: change(one).astype(one.dtype))
    with pytest.raises(InvalidBundleError, match=told):
        open_bundle(copied)
