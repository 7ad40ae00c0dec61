import json

import pytest
from pydantic import ConfigDict, TypeAdapter, with_config

from index.ann.tuning import FLAT_LIMIT
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.search.query import Query
from index.search.retriever import Retriever
from service.schemas.retrieval import RetrieveResponse
from tests.support.http_caller import running
from tests.support.synthetic_bundle import publish_handmade, retrieve_single

EVEN = ["item-0", "item-2", "item-4"]
ODD_ONES = {f"item-{row}" for row in range(1, 40, 2)}


def test_only_items_with_one_of_the_values_come(caller):
    found = caller.found(history=EVEN, k=40, filter={"tags": ["tag 3", "tag 4"]})
    expected = {f"item-{row}" for row in range(40) if row % 5 in (3, 4) and row != 3}
    assert set(found) == expected - set(EVEN)


def test_each_attribute_named_must_fit(caller):
    asked = {"parity": ["odd"], "tags": ["tag 3"]}
    found = caller.found(history=EVEN, k=40, filter=asked)
    assert set(found) == {f"item-{row}" for row in (13, 23, 33)}


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({"odd": [True]}, 20),
        ({"odd": ["true"]}, 20),
        ({"odd": [False]}, 0),
        ({"hundred": [0]}, 37),
        ({"hundred": ["0"]}, 37),
        ({"hundred": [1, 0]}, 37),
    ],
)
def test_numbers_and_booleans_are_compared_as_text(caller, asked, count):
    assert len(caller.found(history=EVEN, k=40, filter=asked)) == count


@pytest.mark.parametrize("question", [{}, {"user_id": "nobody"}, {"history": ["lost"]}])
def test_popular_items_keep_to_the_filter_too(caller, question):
    found = caller.found(**question, k=3, filter={"parity": ["odd"]}, exclude=["item-3"])
    assert found == ["item-1", "item-5", "item-7"]


def test_values_that_no_item_has_are_told(caller):
    told = caller.retrieve(history=EVEN, k=2, filter={"parity": ["odd", "of", 7]}).json()
    assert told["unknown_values"] == {"parity": ["of", "7"]}
    assert {one["item_id"] for one in told["candidates"]} <= ODD_ONES
    assert "unknown_values" not in caller.retrieve(filter={"parity": ["odd"]}).json()


def test_an_attribute_that_is_not_known_is_refused_with_the_known_ones(caller):
    answer = caller.retrieve(history=EVEN, filter={"colour": ["red"]})
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:esans:problem:unknown-attribute"
    assert "by hundred, mood, odd, parity, tags" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({"parity": []}, "filter.parity"),
        ({"parity": "odd"}, "filter.parity"),
        ({"parity": [1.5]}, "filter.parity.0"),
        ({"parity": [None]}, "filter.parity.0"),
        ({"parity": ["x" * 513]}, "filter.parity.0"),
        ({"parity": ["odd"] * 1_001}, "filter.parity"),
        ({str(name): ["odd"] for name in range(33)}, "filter"),
        (["odd"], "filter"),
    ],
)
def test_a_filter_of_another_form_is_refused(caller, asked, place):
    answer = caller.retrieve(history=EVEN, filter=asked)
    assert answer.status_code == 422
    assert [one["location"] for one in answer.json()["errors"]] == [place]


def test_attributes_are_told_on_request(caller):
    told = caller.retrieve(history=EVEN, k=40, include=["attributes"]).json()
    for one in told["candidates"]:
        row = int(one["item_id"][5:])
        own = {"title": f"thing {row} ☃"} | ({"odd": True} if row % 2 else {})
        assert one["attributes"] == own
    popular = caller.retrieve(k=1, include=["attributes", "clusters"]).json()
    assert popular["candidates"] == [
        {
            "item_id": "item-0",
            "score": None,
            "cluster": None,
            "attributes": {"title": "thing 0 ☃"},
        }
    ]
    assert "attributes" not in caller.retrieve(history=EVEN, k=1).json()["candidates"][0]


def test_a_bundle_without_attributes_tells_none_and_filters_by_none(tmp_path):
    publish_handmade(tmp_path, with_metadata=False)
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        told = caller.retrieve(history=EVEN, k=1, include=["attributes"]).json()
        assert told["candidates"][0]["attributes"] == {}
        refused = caller.retrieve(history=EVEN, filter={"parity": ["odd"]})
        assert refused.status_code == 422
        assert "can be filtered by none" in refused.json()["detail"]


def test_a_filtered_answer_is_what_the_schema_says(caller):
    closed = with_config(ConfigDict(extra="forbid"))(RetrieveResponse)
    answer = caller.retrieve(history=EVEN, filter={"parity": ["odd", "of"]}, include=["attributes"])
    TypeAdapter(closed).validate_json(answer.content, strict=True)


def test_a_wide_filter_of_a_large_catalogue_is_answered_from_the_first_time_on(tmp_path):
    publish_handmade(tmp_path, count=FLAT_LIMIT + 1)
    bundle = open_bundle(BundleRegistry(tmp_path).current())
    assert bundle.index.can_build_subset
    question = Query(50, history=EVEN, filter={"parity": ["odd"]})
    bounded = retrieve_single(Retriever(bundle), question, is_bounded=True)
    assert not bounded.is_complete  # so the service resubmits it
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        found = [caller.found(history=EVEN, k=50, filter={"parity": ["odd"]}) for _ in range(2)]
    assert found[0] == found[1] == retrieve_single(Retriever(bundle), question).item_ids
    assert all(int(one[5:]) % 2 == 1 for one in found[0])


def test_a_batch_filters_each_question_by_its_own(caller):
    questions = [
        {"history": EVEN, "k": 5, "filter": {"parity": ["odd"]}},
        {"history": EVEN, "k": 5, "filter": {"parity": ["even"]}, "include": ["attributes"]},
        {"history": EVEN, "k": 5},
    ]
    told = caller.ask("POST", "/retrieve/batch", json={"queries": questions}).json()
    alone = [caller.retrieve(**one).json() for one in questions]
    assert json.dumps(told["results"]) == json.dumps(alone)
