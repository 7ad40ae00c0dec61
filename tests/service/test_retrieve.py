import numpy as np
import pytest
from pydantic import ConfigDict, TypeAdapter, with_config

from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.search.query import Query
from index.search.retriever import Retriever
from service.schemas.retrieval import RetrieveResponse
from tests.support.http_caller import running
from tests.support.synthetic_bundle import ITEM_COUNT, publish_handmade, retrieve_single

EVEN = ["item-0", "item-2", "item-4"]
ALL = [f"item-{row}" for row in range(ITEM_COUNT)]


def test_retrieve_even_history_returns_even_items(caller):
    assert all(int(item_id[5:]) % 2 == 0 for item_id in caller.retrieve_ids(history=EVEN, k=10))


def test_retrieve_returns_k_candidates(caller):
    assert len(caller.retrieve_ids(history=EVEN, k=37)) == 37
    assert len(caller.retrieve_ids(history=EVEN, k=1)) == 1


def test_retrieve_returns_all_if_fewer_are_eligible(caller):
    assert sorted(caller.retrieve_ids(history=EVEN, k=1000)) == sorted(set(ALL) - set(EVEN))
    assert len(caller.retrieve_ids(history=EVEN)) == 37  # k defaults to 100


def test_retrieve_returns_no_duplicates(caller):
    ids = caller.retrieve_ids(history=EVEN, k=100)
    assert len(set(ids)) == len(ids)


def test_retrieve_excludes_seen_items_by_default(caller):
    assert not set(EVEN) & set(caller.retrieve_ids(history=EVEN, k=40))
    assert set(EVEN) <= set(caller.retrieve_ids(history=EVEN, k=40, exclude_seen=False))


def test_retrieve_excludes_listed_items(caller):
    best = caller.retrieve_ids(history=EVEN, k=5)
    assert caller.retrieve_ids(history=EVEN, k=5, exclude=best[:2])[:3] == best[2:]
    assert caller.retrieve_ids(history=EVEN, exclude=ALL) == []


def test_retrieve_by_user_id_uses_stored_history(caller):
    assert caller.retrieve_ids(user_id="user-0") == caller.retrieve_ids(history=EVEN)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"user_id": "unknown-user"}, "unknown_user"),
        ({"history": []}, "empty_history"),
        ({}, "empty_history"),
        ({"history": None, "user_id": None}, "empty_history"),
        ({"user_id": "user-2"}, "empty_history"),
        ({"history": ["nothing", "known"]}, "no_known_items"),
    ],
)
def test_retrieve_fallback_returns_popular_items(caller, query, reason):
    body = caller.retrieve(**query, k=3, exclude=["item-1"]).json()
    assert body["fallback"] == reason
    assert body["candidates"] == [
        {"item_id": item_id, "score": None} for item_id in ("item-0", "item-2", "item-3")
    ]


def test_retrieve_reports_unknown_items(caller):
    body = caller.retrieve(history=["item-0", "lost", 7], k=1).json()
    assert body["unknown_items"] == ["lost", "7"]
    assert "fallback" not in body


def test_retrieve_omits_empty_fields(caller):
    response = caller.retrieve(history=EVEN, k=1)
    assert response.json().keys() == {"bundle", "candidates"}
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "query",
    [
        {"history": EVEN, "k": 20},
        {"history": ["item-1", "lost", "item-0"], "k": 7, "exclude": ["item-3", "lost"]},
        {"user_id": "user-1", "k": 100, "exclude_seen": False},
        {"user_id": "unknown-user", "k": 5},
    ],
)
def test_retrieve_equals_retriever_result(caller, bundles_folder, query):
    bundle = open_bundle(BundleRegistry(bundles_folder).current())
    expected = retrieve_single(Retriever(bundle), Query(**query))
    candidates = caller.retrieve(**query).json()["candidates"]
    assert [candidate["item_id"] for candidate in candidates] == expected.item_ids
    if expected.scores is None:
        assert {candidate["score"] for candidate in candidates} == {None}
    else:
        assert (
            np.float32([candidate["score"] for candidate in candidates]) == expected.scores
        ).all()


def test_retrieve_reads_integer_ids_as_text(tmp_path):
    publish_handmade(tmp_path, prefix="")  # its ids are "-0", "-1", "-2" ...
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        assert caller.retrieve_ids(history=[-2, -4], k=3) == caller.retrieve_ids(
            history=["-2", "-4"], k=3
        )
        assert "-6" not in caller.retrieve_ids(history=[-2, -4], exclude=[-6], k=40)
        body = caller.retrieve(history=[-2, 2**64 - 1]).json()
        assert body["unknown_items"] == ["18446744073709551615"]


def test_retrieve_response_matches_schema(caller):
    closed = with_config(ConfigDict(extra="forbid"))(RetrieveResponse)
    for query in ({"history": EVEN}, {"history": ["lost"]}, {"user_id": "unknown-user"}):
        TypeAdapter(closed).validate_json(caller.retrieve(**query).content, strict=True)
