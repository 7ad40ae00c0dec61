import asyncio
import json
import threading
from urllib.parse import quote, unquote

import pytest

from index.errors import ConfigError, EsansError, InvalidBundleError
from service.errors import TABLE
from tests.support.http_caller import running
from tests.support.problems import assert_problem


def descendants(cls):
    return [
        cls,
        *(descendant for subclass in cls.__subclasses__() for descendant in descendants(subclass)),
    ]


def test_every_error_class_has_a_status():
    classes = [
        cls for cls in descendants(EsansError) if cls.__module__.startswith(("index", "serv"))
    ]
    assert len(classes) > 10
    offline = {"EsansError", "ConfigError", "FaultsError", "DatasetError", "TrainingError"}
    assert {cls.__name__ for cls in classes if cls not in TABLE} == {
        *offline,
        "WorseThanPopularityError",
    }
    assert all(400 <= problem_type.status < 600 for problem_type in TABLE.values())


@pytest.mark.parametrize(
    ("body", "location", "expected"),
    [
        ('{"k": 0}', "k", "greater than or equal to 1"),
        ('{"k": 1001}', "k", "less than or equal to 1000"),
        ('{"k": "5"}', "k", "valid integer"),
        ('{"k": true}', "k", "valid integer"),
        ('{"k": 2.0}', "k", "valid integer"),
        ('{"k": null}', "k", "valid integer"),
        ('{"exclude_seen": "no"}', "exclude_seen", "valid boolean"),
        ('{"histroy": []}', "histroy", "no such field"),
        ('{"history": "item-1"}', "history", "valid array"),
        ('{"history": ["a", 1.5]}', "history.1", "string of 1 to 512 characters or a 64-bit"),
        ('{"history": [true]}', "history.0", "string of 1 to 512 characters or a 64-bit"),
        ('{"history": [null]}', "history.0", "string of 1 to 512 characters or a 64-bit"),
        ('{"history": [""]}', "history.0", "string of 1 to 512 characters or a 64-bit"),
        ('{"exclude": [18446744073709551616]}', "exclude.0", "or a 64-bit integer"),
        ('{"user_id": 1.0}', "user_id", "string of 1 to 512 characters or a 64-bit"),
        (json.dumps({"user_id": "x" * 513}), "user_id", "string of 1 to 512 characters"),
        (json.dumps({"history": [1] * 10_001}), "history", "at most 10000"),
        (json.dumps({"exclude": [1] * 10_001}), "exclude", "at most 10000"),
        ('{"history": [', "the body", "Invalid JSON: EOF"),
        ('{"user_id": "\\ud800"}', "the body", "Invalid JSON"),
        ("", "the body", "Invalid JSON: EOF"),
        ("[]", "the body", "object"),
    ],
)
def test_invalid_body_names_location_and_expected(caller, body, location, expected):
    problem = assert_problem(caller.request("POST", "/retrieve", content=body), 422)
    (error,) = problem["errors"]
    assert error["location"] == location
    assert expected in error["expected"]
    assert error["received"]
    assert location in problem["detail"]


def test_invalid_body_lists_all_errors(caller):
    problem = assert_problem(caller.retrieve(k=0, history=[1.5], surprise=1), 422)
    assert [error["location"] for error in problem["errors"]] == ["history.0", "k", "surprise"]
    assert "and 2 more" in problem["detail"]


def test_invalid_body_lists_the_first_20_errors(caller):
    problem = assert_problem(caller.retrieve(**{f"surprise-{n}": 1 for n in range(1_000)}), 422)
    assert len(problem["errors"]) == 20
    assert "and 999 more" in problem["detail"]


def test_invalid_body_above_limit_reports_error_count(caller):
    problem = assert_problem(caller.retrieve(**{f"surprise-{n}": 1 for n in range(1_001)}), 422)
    (error,) = problem["errors"]
    assert (error["location"], error["received"]) == ("the request", "1001 errors")
    assert "correct or split the request" in error["expected"]


@pytest.mark.parametrize(
    ("path", "body", "location"),
    [
        ("/retrieve", {"history": ["a", *[1.5] * 5_000]}, "history.1"),
        ("/retrieve", {"exclude": [None] * 5_000}, "exclude.0"),
        ("/retrieve", {"filter": {"odd": [{}] * 900}}, "filter.odd.0"),
        ("/embed", {"items": [{"look": ["x"] * 5_000}]}, "items.0.look.0"),
        ("/negatives", {"positives": [1.5] * 5_000, "easy": 1, "hard": 1}, "positives.0"),
    ],
)
def test_invalid_list_reports_first_error(caller, path, body, location):
    (error,) = assert_problem(caller.request("POST", path, json=body), 422)["errors"]
    assert error["location"] == location


def test_invalid_body_truncates_received_list(caller):
    problem = assert_problem(caller.retrieve(k=list(range(1_000))), 422)
    assert problem["errors"][0]["received"].startswith("[0, 1, 2, 3")
    assert len(problem["errors"][0]["received"]) < 100


def test_invalid_body_truncates_received_text(caller):
    problem = assert_problem(caller.retrieve(user_id="x" * 100_000), 422)
    assert len(problem["errors"][0]["received"]) < 100


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/retrieve", {"x" * 100_000: 1}),
        ("/retrieve", {"history": ["item-0"], "filter": {"x" * 400: ["a"]}}),
    ],
)
def test_invalid_body_truncates_received_names(caller, path, body):
    response = caller.request("POST", path, json=body)
    assert_problem(response, 422)
    assert len(response.content) < 1_000


def test_retrieve_accepts_longest_lists(bundles_folder):
    ids = [f"item-{row}" for row in range(10_000)]
    with running(bundles_folder) as caller:
        caller.wait_for("ready")
        response = caller.retrieve(history=ids, exclude=ids)
    assert response.status_code == 200
    assert len(response.json()["unknown_items"]) == 9_960


def test_body_above_limit_returns_413(bundles_folder):
    with running(bundles_folder, body_limit_bytes=2_000) as caller:
        problem = assert_problem(caller.request("POST", "/retrieve", content=b" " * 2_001), 413)
    assert "larger than 2000 bytes" in problem["detail"]


def test_chunked_body_above_limit_stops_reading(bundles_folder):
    read = []

    async def pieces():
        for _ in range(1_000):
            read.append(1)
            yield b" " * 1_000

    with running(bundles_folder, body_limit_bytes=2_000) as caller:
        assert_problem(caller.request("POST", "/retrieve", content=pieces()), 413)
    assert len(read) < 10


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ('{"k": 1, "k": 2}', ["k"]),
        ('{"k" :1,"k"\n:1}', ["k"]),
        ('{"\\u006b": 1, "k": 1}', ["k"]),
        ('{"filter": {"odd": ["yes"], "odd": ["no"]}}', ["odd"]),
        ('{"user_id": "a", "user_id": "b:\\":c"}', ["user_id"]),
        ('{"k": 1, "k": 2, "history": [' + '"item-1", ' * 9_000 + '"item-2"]}', ["k"]),
    ],
)
def test_body_with_repeated_key_returns_422(caller, body, names):
    problem = assert_problem(caller.request("POST", "/retrieve", content=body.encode()), 422)
    assert problem["type"] == "urn:esans:problem:invalid-body"
    assert [error["location"] for error in problem["errors"]] == names


@pytest.mark.parametrize(
    "body",
    [
        '{"user_id": "a:b", "history": ["c\\":d"], "filter": {"odd:": ["yes:"], "odd": ["no"]}}',
        '{"queries": [{"k": 1, "filter": {"odd": ["yes"]}}, {"k": 1}, {"user_id": "k: \\"k\\":"}]}',
    ],
)
def test_body_with_colons_in_texts_is_accepted(caller, body):
    path = "/retrieve/batch" if "queries" in body else "/retrieve"
    response = caller.request("POST", path, content=body)
    assert "repeated" not in response.text
    assert response.json().get("type") != "urn:esans:problem:invalid-body"


def test_large_bodies_above_limit_are_rejected_as_busy(bundles_folder):
    with running(bundles_folder) as caller:
        caller.wait_for("ready")
        executor, is_free = caller.app.state.large_bodies, threading.Event()
        jobs = [caller.start(executor.run, is_free.wait) for _ in range(32)]
        caller.run(asyncio.sleep, 0)  # all have started
        body = json.dumps({"exclude": ["x" * 500] * 200})
        problem = assert_problem(caller.request("POST", "/retrieve", content=body), 503)
        assert problem["type"] == "urn:esans:problem:busy"
        assert caller.retrieve(k=1).status_code == 200
        is_free.set()
        assert all(job.result(timeout=30) for job in jobs)
        assert caller.request("POST", "/retrieve", content=body).status_code == 200


def test_unknown_path_returns_problem(caller):
    problem = assert_problem(caller.get("/retrieve/"), 404)
    assert problem["instance"] == "/retrieve/"


@pytest.mark.parametrize("path", ["/a b/\u00e9?#%/\n", "/[::1", "/items/\u202e/"])
def test_problem_instance_is_percent_encoded_path(caller, path):
    problem = assert_problem(caller.get(quote(path)), 404)
    assert problem["instance"].isascii()
    assert unquote(problem["instance"]) == path


@pytest.mark.parametrize("host", ["[", "a b", "[::1", "x:y:z", "\xff"])
def test_invalid_host_header_still_returns_problem(caller, host):
    assert_problem(caller.get("/nowhere", headers={"Host": host.encode("latin-1")}), 404)
    assert_problem(
        caller.request("POST", "/retrieve", content="{", headers={"Host": host.encode("latin-1")}),
        422,
    )


def test_wrong_method_returns_allow_header(caller):
    response = caller.get("/retrieve")
    assert_problem(response, 405)
    assert response.headers["allow"] == "POST"


def test_retrieve_before_bundle_is_live_returns_503(empty):
    response = empty.retrieve(history=["item-0"])
    problem = assert_problem(response, 503)
    assert response.headers["retry-after"] == "1"
    assert "no bundle is live yet (no bundle)" in problem["detail"]
    assert_problem(empty.get("/bundle"), 503)


@pytest.mark.parametrize("error", [RuntimeError("secret"), ConfigError("secret")])
def test_internal_error_hides_details(empty, error):
    async def fail():
        raise error

    empty.app.router.add_api_route("/broken", fail)
    response = empty.get("/broken")
    assert_problem(response, 500)
    assert "secret" not in response.text


def test_invalid_bundle_error_returns_503(empty):
    async def fail():
        raise InvalidBundleError("here", ["this is wrong"])

    empty.app.router.add_api_route("/faulty", fail)
    assert "this is wrong" in assert_problem(empty.get("/faulty"), 503)["detail"]
