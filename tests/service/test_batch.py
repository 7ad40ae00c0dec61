import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ConfigDict, TypeAdapter, with_config

from index.bundle.registry import BundleRegistry
from service.bundle_watcher import open_served_bundle
from service.metrics import Metrics
from service.retrieval_service import RetrievalService, build_work
from service.schemas.retrieval import BatchResponse, RetrieveRequest
from tests.support.http_caller import running, until
from tests.support.problems import assert_problem
from tests.support.service_process import connect, receive_all, start_service
from tests.support.synthetic_bundle import publish_handmade

CLOSE = 1e-5
QUERIES = [
    {"history": ["item-0", "item-2", "item-4"], "k": 7},
    {"user_id": "user-1", "k": 40, "exclude_seen": False},
    {"user_id": "unknown-user", "k": 3, "exclude": ["item-1"]},
    {"history": ["item-1", "lost", 7], "include": ["clusters"]},
    {"history": []},
    {"history": [f"item-{row}" for row in range(40)], "k": 5},
    {},
]


ids = st.sampled_from([*(f"item-{row}" for row in range(40)), "lost", 7])
queries = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.sampled_from(["user-0", "user-1", "user-2", "unknown-user"]),
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


def send_batch(caller, queries):
    return caller.request("POST", "/retrieve/batch", json={"queries": queries})


NO_UNKNOWNS = dict.fromkeys(("unknown_items", "unknown_values"))


def without(value, ids):
    """Remove ids from a list or from the lists of a filter."""
    if isinstance(value, dict):
        return {key: without(item, ids) for key, item in value.items()}
    return [item for item in value if item not in ids] if isinstance(value, list) else value


def assert_same(batched, alone):
    """Assert equality up to score rounding and the order of equal scores."""
    assert batched.keys() == alone.keys()
    actual, expected = batched["candidates"], alone["candidates"]
    assert len(actual) == len(expected)
    for candidate, other in zip(actual, expected, strict=True):
        if candidate["item_id"] != other["item_id"]:
            assert abs(candidate["score"] - other["score"]) <= CLOSE
        assert (candidate["score"] is None) == (other["score"] is None)
        assert candidate["score"] is None or abs(candidate["score"] - other["score"]) <= CLOSE
        for key in ("cluster", "attributes") if candidate["item_id"] == other["item_id"] else ():
            assert candidate.get(key) == other.get(key)
    rest = {"candidates": None}
    assert batched | rest == alone | rest


def test_batch_results_equal_single_results(caller):
    response = send_batch(caller, QUERIES)
    assert response.status_code == 200
    body = response.json()
    assert body["bundle"] == caller.get("/bundle").json()["version"]
    assert len(body["results"]) == len(QUERIES)
    for query, result in zip(QUERIES, body["results"], strict=True):
        assert_same(result, caller.retrieve(**query).json())


@given(queries=st.lists(queries, min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_random_batch_results_equal_single_results(caller, queries):
    results = send_batch(caller, queries).json()["results"]
    for query, result in zip(queries, results, strict=True):
        assert_same(result, caller.retrieve(**query).json())


def test_batch_with_huge_query_equals_single_results(caller):
    many = [f"stranger-{row}" for row in range(3_000)]
    queries = [
        {"history": [*many, "item-0", "item-2"], "k": 5},
        {"history": ["item-0", "item-2"], "k": 5},
        {"history": ["item-0"], "exclude": [*many, "item-4"], "k": 5},
        {"history": ["item-0"], "filter": {"tags": [*many[:900], "tag 1"]}, "k": 5},
        {"exclude": many},
    ]
    for query, result in zip(queries, send_batch(caller, queries).json()["results"], strict=True):
        assert_same(result, caller.retrieve(**query).json())
        few = {key: without(value, {*many}) for key, value in query.items()}
        assert_same(result | NO_UNKNOWNS, caller.retrieve(**few).json() | NO_UNKNOWNS)


def test_process_leaves_huge_query_incomplete(bundles_folder):
    live = open_served_bundle(BundleRegistry(bundles_folder).current())
    lengths = [10, 2_001, 1_990, 1_990, 11, *[1] * 40]
    nothing = SimpleNamespace(current=lambda: None, get_denied_rows=lambda _: None)
    service = RetrievalService(None, None, nothing, nothing, Metrics())
    requests = [RetrieveRequest(history=["item-0"] * length) for length in lengths]
    work = build_work(live, partial(service.process, live, None), requests)
    pairs = [pair for part in work.parts for pair in work.process(part)]
    assert [row for row, (result, _) in enumerate(pairs) if not result.is_complete] == [1]
    parts = [[len(request.history) for request in part] for part in work.parts]
    assert parts == [[10], [2_001], [1_990, 1_990, 11, *[1] * 7], [1] * 32, [1]]
    ((result, body),) = work.process([requests[1]], is_bounded=False)
    assert result.is_complete
    assert json.loads(body) == json.loads(pairs[0][1])


def test_largest_batch_keeps_order(caller):
    queries = [{"history": [f"item-{row % 40}"], "k": 1 + row % 39} for row in range(256)]
    for row, result in enumerate(send_batch(caller, queries).json()["results"]):
        assert len(result["candidates"]) == 1 + row % 39
        assert f"item-{row % 40}" not in [
            candidate["item_id"] for candidate in result["candidates"]
        ]


def test_batch_response_matches_schema(caller):
    closed = TypeAdapter(with_config(ConfigDict(extra="forbid"))(BatchResponse))
    response = send_batch(caller, QUERIES)
    closed.validate_json(response.content, strict=True)
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "location", "expected"),
    [
        ("{}", "queries", "required"),
        ('{"queries": []}', "queries", "at least 1"),
        (json.dumps({"queries": [{}] * 257}), "queries", "at most 256"),
        (
            '{"queries": [{}, {}, {}, {"history": [1.5]}]}',
            "queries.3.history.0",
            "an id is a string",
        ),
        ('{"queries": [{"k": 1001}]}', "queries.0.k", "less than or equal to 1000"),
        ('{"queries": [{"queries": []}]}', "queries.0.queries", "no such field"),
        ('{"queries": [{}, null]}', "queries.1", "object"),
    ],
)
def test_invalid_batch_names_location_and_expected(caller, body, location, expected):
    problem = assert_problem(caller.request("POST", "/retrieve/batch", content=body), 422)
    (error,) = problem["errors"]
    assert error["location"] == location
    assert expected in error["expected"]


def test_unknown_attribute_is_reported_for_each_query(caller):
    queries = [{}, {"filter": {"parity": ["odd"], "colour": ["red"]}}, {"filter": {"size": [1]}}]
    problem = assert_problem(send_batch(caller, queries), 422)
    locations = [error["location"] for error in problem["errors"]]
    assert locations == ["queries.1.filter.colour", "queries.2.filter.size"]
    expected = "an attribute of the live bundle: hundred, mood, odd, parity, tags"
    assert {error["expected"] for error in problem["errors"]} == {expected}
    assert problem["type"] == "urn:esans:problem:unknown-attribute"


def test_metrics_count_each_result_of_a_batch(bundles_folder):
    with running(bundles_folder) as caller:
        caller.wait_for("ready")
        send_batch(caller, [{"history": ["item-0"], "k": 10}, {"user_id": "unknown-user"}, {}])
        assert caller.metric("esans_candidates_returned_count") == 3
        assert caller.metric('esans_short_results_total{reason="eligible"}') == 2
        assert caller.metric('esans_fallback_total{reason="unknown_user"}') == 1
        assert caller.metric('esans_stage_duration_seconds_count{stage="search"}') == 1
        assert caller.metric('esans_stage_duration_seconds_count{stage="total"}') == 1


def test_single_queries_are_served_during_batches(caller):
    queries = [{"history": [f"item-{row % 40}"], "k": 39} for row in range(256)]
    is_finished = threading.Event()
    responses = []

    def send_batches():
        responses.extend(send_batch(caller, queries) for _ in range(5))
        is_finished.set()

    sender = threading.Thread(target=send_batches)
    sender.start()
    num_served = 0
    while not is_finished.is_set():
        assert caller.retrieve(history=["item-0"], k=5).status_code == 200
        num_served += 1
    sender.join()
    assert [response.status_code for response in responses] == [200] * 5
    assert num_served >= 5


def test_batch_uses_single_bundle_during_hot_swaps(tmp_path):
    versions = [publish_handmade(tmp_path, prefix="a")]
    queries = [{"history": [f"{letter}-0"], "k": 3} for letter in "ab" * 100]
    with running(tmp_path) as caller:
        caller.wait_for("ready")
        for letter in "babab":
            versions.append(publish_handmade(tmp_path, prefix=letter, seed=len(versions)))
            while caller.get("/readyz").json()["bundle"] != versions[-1]:
                body = send_batch(caller, queries).json()
                assert {result["bundle"] for result in body["results"]} == {body["bundle"]}
                prefixes = {
                    candidate["item_id"][0]
                    for result in body["results"]
                    for candidate in result["candidates"]
                }
                assert len(prefixes) == 1


def test_batch_when_queue_is_full_returns_503(bundles_folder):
    with running(bundles_folder, queue_limit=1) as caller:
        caller.wait_for("ready")
        queries = [{"history": ["item-0"], "k": 39}] * 256
        seen = set()

        def send_batches():
            for _ in range(40):
                response = send_batch(caller, queries)
                seen.add(response.status_code)
                if response.status_code == 503:
                    assert "results" not in assert_problem(response, 503)
                    assert response.headers["retry-after"]

        senders = [threading.Thread(target=send_batches) for _ in range(4)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        assert seen == {200, 503}
        assert send_batch(caller, queries).status_code == 200


def test_long_batch_is_streamed_in_parts_and_complete(bundles_folder):
    queries = [{**QUERIES[row % 4], "k": 1_000} for row in range(256)]
    options = {"ESANS_ACCESS_LOG": "false", "ESANS_QUEUE_LIMIT": "1"}
    with start_service(bundles_folder, **options) as (client, _):
        until(lambda: client.get("/readyz").status_code == 200, limit_s=30)
        with ThreadPoolExecutor(4) as pool:
            others = [pool.submit(client.post, "/retrieve", json={"k": 1}) for _ in range(200)]
            streamed = until(lambda: succeeded(post_batch(client, queries)), limit_s=30)
            assert {other.result().status_code for other in others} <= {200, 503}
        alone = [client.post("/retrieve", json=query).json() for query in queries[:4]]
    assert streamed.headers["transfer-encoding"] == "chunked"
    assert streamed.headers["cache-control"] == "no-store"
    results = streamed.json()["results"]
    assert len(results) == 256
    assert [list(each) for each in results] == [list(each) for each in alone * 64]
    for result, single in zip(results, alone * 64, strict=True):
        assert [each["item_id"] for each in result["candidates"]] == [
            each["item_id"] for each in single["candidates"]
        ]


def post_batch(client, queries):
    return client.post("/retrieve/batch", json={"queries": queries}, timeout=60)


def succeeded(response):
    return response if response.status_code == 200 else None


def test_long_batch_over_http_1_0_has_a_length(bundles_folder):
    body = json.dumps({"queries": [{"k": 1_000}] * 100}).encode()
    head = b"POST /retrieve/batch HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body)
    with start_service(bundles_folder) as (client, _), closing(connect(client)) as connection:
        until(lambda: client.get("/readyz").status_code == 200, limit_s=30)
        connection.sendall(head + body)
        head, body = receive_all(connection).split(b"\r\n\r\n", 1)
    assert b"content-length: %d\r\n" % len(body) in head
    assert len(json.loads(body)["results"]) == 100


def test_first_error_of_long_batch_is_a_problem(caller):
    queries = [{"k": 1_000, "filter": {"unknown": ["x"]}}] * 100
    assert_problem(send_batch(caller, queries), 422)
