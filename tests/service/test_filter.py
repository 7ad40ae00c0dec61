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
ODD_ITEMS = {f"item-{row}" for row in range(1, 40, 2)}


def test_filter_keeps_items_with_any_value(caller):
    ids = caller.retrieve_ids(history=EVEN, k=40, filter={"tags": ["tag 3", "tag 4"]})
    expected = {f"item-{row}" for row in range(40) if row % 5 in (3, 4) and row != 3}
    assert set(ids) == expected - set(EVEN)


def test_filter_requires_every_attribute(caller):
    conditions = {"parity": ["odd"], "tags": ["tag 3"]}
    ids = caller.retrieve_ids(history=EVEN, k=40, filter=conditions)
    assert set(ids) == {f"item-{row}" for row in (13, 23, 33)}


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        ({"odd": [True]}, 20),
        ({"odd": ["true"]}, 20),
        ({"odd": [False]}, 0),
        ({"hundred": [0]}, 37),
        ({"hundred": ["0"]}, 37),
        ({"hundred": [1, 0]}, 37),
    ],
)
def test_filter_compares_numbers_and_booleans_as_text(caller, conditions, count):
    assert len(caller.retrieve_ids(history=EVEN, k=40, filter=conditions)) == count


@pytest.mark.parametrize("query", [{}, {"user_id": "unknown-user"}, {"history": ["lost"]}])
def test_filter_applies_to_popularity_fallback(caller, query):
    ids = caller.retrieve_ids(**query, k=3, filter={"parity": ["odd"]}, exclude=["item-3"])
    assert ids == ["item-1", "item-5", "item-7"]


def test_filter_reports_unknown_values(caller):
    body = caller.retrieve(history=EVEN, k=2, filter={"parity": ["odd", "of", 7]}).json()
    assert body["unknown_values"] == {"parity": ["of", "7"]}
    assert {candidate["item_id"] for candidate in body["candidates"]} <= ODD_ITEMS
    assert "unknown_values" not in caller.retrieve(filter={"parity": ["odd"]}).json()


def test_filter_by_unknown_attribute_lists_known_names(caller):
    response = caller.retrieve(history=EVEN, filter={"colour": ["red"]})
    assert response.status_code == 422
    assert response.json()["type"] == "urn:esans:problem:unknown-attribute"
    assert "bundle: hundred, mood, odd, parity, tags" in response.json()["detail"]


@pytest.mark.parametrize(
    ("conditions", "location"),
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
def test_invalid_filter_names_location(caller, conditions, location):
    response = caller.retrieve(history=EVEN, filter=conditions)
    assert response.status_code == 422
    assert [error["location"] for error in response.json()["errors"]] == [location]


def test_include_attributes_returns_attributes(caller):
    body = caller.retrieve(history=EVEN, k=40, include=["attributes"]).json()
    for candidate in body["candidates"]:
        row = int(candidate["item_id"][5:])
        expected = {"title": f"thing {row} ☃"} | ({"odd": True} if row % 2 else {})
        assert candidate["attributes"] == expected
    popular = caller.retrieve(k=1, include=["attributes", "clusters"]).json()
    assert popular["candidates"] == [
        {"item_id": "item-0", "score": None, "cluster": None, "attributes": {"title": "thing 0 ☃"}}
    ]
    assert "attributes" not in caller.retrieve(history=EVEN, k=1).json()["candidates"][0]


def test_bundle_without_attributes_rejects_filters(tmp_path):
    publish_handmade(tmp_path, with_metadata=False)
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        body = caller.retrieve(history=EVEN, k=1, include=["attributes"]).json()
        assert body["candidates"][0]["attributes"] == {}
        refused = caller.retrieve(history=EVEN, filter={"parity": ["odd"]})
        assert refused.status_code == 422
        assert "an attribute of the live bundle: none" in refused.json()["detail"]


def test_filtered_response_matches_schema(caller):
    closed = with_config(ConfigDict(extra="forbid"))(RetrieveResponse)
    response = caller.retrieve(
        history=EVEN, filter={"parity": ["odd", "of"]}, include=["attributes"]
    )
    TypeAdapter(closed).validate_json(response.content, strict=True)


def test_wide_filter_first_request_is_complete(tmp_path):
    publish_handmade(tmp_path, count=FLAT_LIMIT + 1)
    bundle = open_bundle(BundleRegistry(tmp_path).current())
    assert bundle.index.can_build_subset
    query = Query(50, history=EVEN, filter={"parity": ["odd"]})
    bounded = retrieve_single(Retriever(bundle), query, is_bounded=True)
    assert not bounded.is_complete  # so the service resubmits it
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        results = [
            caller.retrieve_ids(history=EVEN, k=50, filter={"parity": ["odd"]}) for _ in range(2)
        ]
    assert results[0] == results[1] == retrieve_single(Retriever(bundle), query).item_ids
    assert all(int(item_id[5:]) % 2 == 1 for item_id in results[0])


def test_batch_applies_filter_per_query(caller):
    queries = [
        {"history": EVEN, "k": 5, "filter": {"parity": ["odd"]}},
        {"history": EVEN, "k": 5, "filter": {"parity": ["even"]}, "include": ["attributes"]},
        {"history": EVEN, "k": 5},
    ]
    body = caller.request("POST", "/retrieve/batch", json={"queries": queries}).json()
    alone = [caller.retrieve(**query).json() for query in queries]
    assert json.dumps(body["results"]) == json.dumps(alone)
