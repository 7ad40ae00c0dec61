import json
import threading
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ConfigDict, TypeAdapter, with_config

from index.bundle.registry import BundleRegistry
from service.bundle_watcher import open_served_bundle
from service.metrics import Metrics
from service.retrieval_service import RetrievalService, work_of
from service.schemas.retrieval import BatchResponse, RetrieveRequest
from tests.service.test_problems import problem
from tests.support.http_caller import running
from tests.support.synthetic_bundle import publish_handmade

CLOSE = 1e-5
QUESTIONS = [
    {"history": ["item-0", "item-2", "item-4"], "k": 7},
    {"user_id": "user-1", "k": 40, "exclude_seen": False},
    {"user_id": "nobody", "k": 3, "exclude": ["item-1"]},
    {"history": ["item-1", "lost", 7], "include": ["clusters"]},
    {"history": []},
    {"history": [f"item-{row}" for row in range(40)], "k": 5},
    {},
]


ids = st.sampled_from([*(f"item-{row}" for row in range(40)), "lost", 7])
questions = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.sampled_from(["user-0", "user-1", "user-2", "nobody"]),
        "history": st.none() | st.lists(ids, max_size=45),
        "k": st.integers(1, 50),
        "exclude": st.lists(ids, max_size=45),
        "exclude_seen": st.booleans(),
        "filter": st.sampled_from(
            [{"parity": ["odd"]}, {"tags": ["tag 1", "tag 9"], "odd": [True]}]
        ),
        "include": st.just(["attributes"]),
    },
)


def batch(caller, questions):
    return caller.ask("POST", "/retrieve/batch", json={"queries": questions})


TOLD = ("unknown_items", "unknown_values")  # what an answer tells of what is not known
NOT_TOLD = dict.fromkeys(TOLD)


def without(value, ids):
    """Leave some ids out of a list, or out of a filter's."""
    if isinstance(value, dict):
        return {key: without(one, ids) for key, one in value.items()}
    return [one for one in value if one not in ids] if isinstance(value, list) else value


def assert_same(together, alone):
    """The same but for rounding in scores, and for who comes first among equals."""
    assert together.keys() == alone.keys()
    found, expected = together["candidates"], alone["candidates"]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if one["item_id"] != other["item_id"]:
            assert abs(one["score"] - other["score"]) <= CLOSE
        assert (one["score"] is None) == (other["score"] is None)
        assert one["score"] is None or abs(one["score"] - other["score"]) <= CLOSE
        for key in ("cluster", "attributes") if one["item_id"] == other["item_id"] else ():
            assert one.get(key) == other.get(key)
    rest = {"candidates": None}
    assert together | rest == alone | rest


def test_each_question_of_a_batch_is_answered_as_if_asked_alone(caller):
    answer = batch(caller, QUESTIONS)
    assert answer.status_code == 200
    told = answer.json()
    assert told["bundle"] == caller.get("/bundle").json()["version"]
    assert len(told["results"]) == len(QUESTIONS)
    for question, together in zip(QUESTIONS, told["results"], strict=True):
        assert_same(together, caller.retrieve(**question).json())


@given(asked=st.lists(questions, min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_a_batch_is_answered_as_its_questions_alone_whatever_they_are(caller, asked):
    together = batch(caller, asked).json()["results"]
    for question, told in zip(asked, together, strict=True):
        assert_same(told, caller.retrieve(**question).json())


def test_a_question_with_very_many_ids_is_answered_beside_the_others_and_alike(caller):
    many = [f"stranger-{row}" for row in range(3_000)]
    asked = [
        {"history": [*many, "item-0", "item-2"], "k": 5},
        {"history": ["item-0", "item-2"], "k": 5},
        {"history": ["item-0"], "exclude": [*many, "item-4"], "k": 5},
        {"history": ["item-0"], "filter": {"tags": [*many[:900], "tag 1"]}, "k": 5},
        {"exclude": many},
    ]
    for question, together in zip(asked, batch(caller, asked).json()["results"], strict=True):
        assert_same(together, caller.retrieve(**question).json())
        few = {key: without(value, {*many}) for key, value in question.items()}
        assert_same(together | NOT_TOLD, caller.retrieve(**few).json() | NOT_TOLD)


def test_what_takes_long_to_look_up_is_not_looked_up_in_a_turn(bundles_folder):
    live = open_served_bundle(BundleRegistry(bundles_folder).current())
    lengths = [10, 2_001, 1_990, 1_990, 11, *[1] * 40]
    nothing = SimpleNamespace(current=lambda: None, get_denied_rows=lambda _: None)
    service = RetrievalService(None, None, nothing, nothing, Metrics())
    asked = [RetrieveRequest(history=["item-0"] * length) for length in lengths]
    work = work_of(live, partial(service.process, live, None), asked)
    found = [pair for part in work.parts for pair in work.process(part)]
    assert [place for place, (one, _) in enumerate(found) if not one.is_complete] == [1]
    parts = [[len(one.history) for one in part] for part in work.parts]
    assert parts == [[10], [2_001], [1_990, 1_990, 11, *[1] * 7], [1] * 32, [1]]
    ((result, body),) = work.process([asked[1]], is_bounded=False)
    assert result.is_complete
    assert json.loads(body) == json.loads(found[0][1])


def test_the_largest_batch_is_answered_in_order(caller):
    questions = [{"history": [f"item-{row % 40}"], "k": 1 + row % 39} for row in range(256)]
    for row, told in enumerate(batch(caller, questions).json()["results"]):
        assert len(told["candidates"]) == 1 + row % 39
        assert f"item-{row % 40}" not in [one["item_id"] for one in told["candidates"]]


def test_an_answer_is_what_the_schema_says(caller):
    closed = TypeAdapter(with_config(ConfigDict(extra="forbid"))(BatchResponse))
    answer = batch(caller, QUESTIONS)
    closed.validate_json(answer.content, strict=True)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "place", "expected"),
    [
        ("{}", "queries", "required"),
        ('{"queries": []}', "queries", "at least 1"),
        (json.dumps({"queries": [{}] * 257}), "queries", "at most 256"),
        (
            '{"queries": [{}, {}, {}, {"history": [1.5]}]}',
            "queries.3.history.0",
            "an id is text",
        ),
        ('{"queries": [{"k": 1001}]}', "queries.0.k", "less than or equal to 1000"),
        ('{"queries": [{"queries": []}]}', "queries.0.queries", "no such key here"),
        ('{"queries": [{}, null]}', "queries.1", "object"),
    ],
)
def test_one_fault_refuses_the_batch_and_is_named_by_place(caller, body, place, expected):
    told = problem(caller.ask("POST", "/retrieve/batch", content=body), 422)
    (fault,) = told["errors"]
    assert fault["location"] == place
    assert expected in fault["expected"]


def test_an_attribute_that_is_not_known_is_named_by_place_in_all_questions(caller):
    asked = [{}, {"filter": {"parity": ["odd"], "colour": ["red"]}}, {"filter": {"size": [1]}}]
    told = problem(batch(caller, asked), 422)
    places = [one["location"] for one in told["errors"]]
    assert places == ["queries.1.filter.colour", "queries.2.filter.size"]
    expected = "the bundle can be filtered by hundred, mood, odd, parity, tags"
    assert {one["expected"] for one in told["errors"]} == {expected}
    assert told["type"] == "urn:esans:problem:unknown-attribute"


def test_each_answer_of_a_batch_is_counted(bundles_folder):
    with running(bundles_folder) as caller:
        caller.wait_for("ready")
        batch(caller, [{"history": ["item-0"], "k": 10}, {"user_id": "nobody"}, {}])
        assert caller.metric("esans_candidates_returned_count") == 3
        assert caller.metric('esans_short_results_total{reason="eligible"}') == 2
        assert caller.metric('esans_fallback_total{reason="unknown_user"}') == 1
        assert caller.metric('esans_stage_duration_seconds_count{stage="search"}') == 1
        assert caller.metric('esans_stage_duration_seconds_count{stage="total"}') == 1


def test_others_are_answered_while_a_batch_is(caller):
    questions = [{"history": [f"item-{row % 40}"], "k": 39} for row in range(256)]
    is_over = threading.Event()
    answers = []

    def ask_much():
        answers.extend(batch(caller, questions) for _ in range(5))
        is_over.set()

    asking = threading.Thread(target=ask_much)
    asking.start()
    answered = 0
    while not is_over.is_set():
        assert caller.retrieve(history=["item-0"], k=5).status_code == 200
        answered += 1
    asking.join()
    assert [one.status_code for one in answers] == [200] * 5
    assert answered >= 5


def test_a_batch_is_answered_by_one_bundle_while_bundles_change(tmp_path):
    versions = [publish_handmade(tmp_path, prefix="a")]
    questions = [{"history": [f"{letter}-0"], "k": 3} for letter in "ab" * 100]
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        for letter in "babab":
            versions.append(publish_handmade(tmp_path, prefix=letter, seed=len(versions)))
            while caller.get("/readyz").json()["bundle"] != versions[-1]:
                told = batch(caller, questions).json()
                assert {one["bundle"] for one in told["results"]} == {told["bundle"]}
                found = {
                    one["item_id"][0] for each in told["results"] for one in each["candidates"]
                }
                assert len(found) == 1


def test_a_batch_that_comes_when_the_queue_is_full_is_refused_whole(bundles_folder):
    with running(bundles_folder, queue_limit=1) as caller:
        caller.wait_for("ready")
        questions = [{"history": ["item-0"], "k": 39}] * 256
        seen = set()

        def ask_much():
            for _ in range(40):
                answer = batch(caller, questions)
                seen.add(answer.status_code)
                if answer.status_code == 503:
                    assert "results" not in problem(answer, 503)
                    assert answer.headers["retry-after"]

        asking = [threading.Thread(target=ask_much) for _ in range(4)]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
        assert seen == {200, 503}
        assert batch(caller, questions).status_code == 200
