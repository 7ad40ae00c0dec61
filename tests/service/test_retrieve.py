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


def test_an_even_history_is_answered_with_even_items(caller):
    assert all(int(one[5:]) % 2 == 0 for one in caller.found(history=EVEN, k=10))


def test_as_many_come_as_were_asked_for_while_there_are_enough(caller):
    assert len(caller.found(history=EVEN, k=37)) == 37
    assert len(caller.found(history=EVEN, k=1)) == 1


def test_where_fewer_are_eligible_all_of_them_come(caller):
    assert sorted(caller.found(history=EVEN, k=1000)) == sorted(set(ALL) - set(EVEN))
    assert len(caller.found(history=EVEN)) == 37  # k is 100 unless told


def test_nothing_comes_twice(caller):
    found = caller.found(history=EVEN, k=100)
    assert len(set(found)) == len(found)


def test_what_was_seen_does_not_come_unless_it_is_wanted(caller):
    assert not set(EVEN) & set(caller.found(history=EVEN, k=40))
    assert set(EVEN) <= set(caller.found(history=EVEN, k=40, exclude_seen=False))


def test_what_is_excluded_does_not_come(caller):
    best = caller.found(history=EVEN, k=5)
    assert caller.found(history=EVEN, k=5, exclude=best[:2])[:3] == best[2:]
    assert caller.found(history=EVEN, exclude=ALL) == []


def test_a_known_user_is_asked_for_by_id(caller):
    assert caller.found(user_id="user-0") == caller.found(history=EVEN)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ({"user_id": "nobody"}, "unknown_user"),
        ({"history": []}, "empty_history"),
        ({}, "empty_history"),
        ({"history": None, "user_id": None}, "empty_history"),
        ({"user_id": "user-2"}, "empty_history"),
        ({"history": ["nothing", "known"]}, "no_known_items"),
    ],
)
def test_where_nothing_is_known_the_popular_items_come_without_scores(caller, question, reason):
    told = caller.retrieve(**question, k=3, exclude=["item-1"]).json()
    assert told["fallback"] == reason
    assert told["candidates"] == [
        {"item_id": one, "score": None} for one in ("item-0", "item-2", "item-3")
    ]


def test_unknown_items_of_a_history_are_told(caller):
    told = caller.retrieve(history=["item-0", "lost", 7], k=1).json()
    assert told["unknown_items"] == ["lost", "7"]
    assert "fallback" not in told


def test_what_there_is_nothing_to_say_about_is_absent(caller):
    told = caller.retrieve(history=EVEN, k=1)
    assert told.json().keys() == {"bundle", "candidates"}
    assert told.headers["cache-control"] == "no-store"
    assert told.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "question",
    [
        {"history": EVEN, "k": 20},
        {"history": ["item-1", "lost", "item-0"], "k": 7, "exclude": ["item-3", "lost"]},
        {"user_id": "user-1", "k": 100, "exclude_seen": False},
        {"user_id": "nobody", "k": 5},
    ],
)
def test_the_answer_is_the_retrievers_own(caller, bundles_folder, question):
    bundle = open_bundle(BundleRegistry(bundles_folder).current())
    own = retrieve_single(Retriever(bundle), Query(**question))
    told = caller.retrieve(**question).json()["candidates"]
    assert [one["item_id"] for one in told] == own.item_ids
    if own.scores is None:
        assert {one["score"] for one in told} == {None}
    else:
        assert (np.float32([one["score"] for one in told]) == own.scores).all()


def test_integer_ids_are_text_once_they_are_read(tmp_path):
    publish_handmade(tmp_path, prefix="")  # its ids are "-0", "-1", "-2" ...
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        assert caller.found(history=[-2, -4], k=3) == caller.found(history=["-2", "-4"], k=3)
        assert "-6" not in caller.found(history=[-2, -4], exclude=[-6], k=40)
        told = caller.retrieve(history=[-2, 2**64 - 1]).json()
        assert told["unknown_items"] == ["18446744073709551615"]


def test_an_answer_is_what_the_schema_says(caller):
    closed = with_config(ConfigDict(extra="forbid"))(RetrieveResponse)
    for question in ({"history": EVEN}, {"history": ["lost"]}, {"user_id": "nobody"}):
        TypeAdapter(closed).validate_json(caller.retrieve(**question).content, strict=True)
