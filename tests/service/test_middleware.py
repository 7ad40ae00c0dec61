import asyncio
import json
import re

import pytest

from service.errors import BodyTooLargeError
from service.logging_config import JsonFormatter, written
from service.middleware import BodyLimit
from service.request_queue import received
from tests.support.http_caller import logged_lines, running


def test_a_safe_request_id_comes_back(caller):
    answer = caller.get("/livez", headers={"X-Request-ID": "Shop-1:a/b=c.d_e"})
    assert answer.headers["x-request-id"] == "Shop-1:a/b=c.d_e"


@pytest.mark.parametrize("said", ["", " ", "a b", "x" * 129, 'quo"te', "<script>", "é"])
def test_an_unsafe_request_id_is_replaced(caller, said):
    answer = caller.get("/livez", headers={"X-Request-ID": said.encode()})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_two_requests_have_two_ids(caller):
    first, second = (caller.get("/livez").headers["x-request-id"] for _ in range(2))
    assert first != second


def test_each_request_is_one_line_in_the_log(caller):
    with logged_lines(JsonFormatter()) as lines:
        caller.ask("POST", "/retrieve", json={}, headers={"X-Request-ID": "one"})
        caller.get("/nowhere/user-17")
    first, second = lines
    assert (first["event"], first["level"], first["request_id"]) == ("request", "info", "one")
    assert (first["method"], first["route"], first["status"]) == ("POST", "/retrieve", 200)
    assert 0 < first["duration_ms"] < 10_000
    assert (second["route"], second["status"]) == ("unmatched", 404)


def test_a_failure_is_logged_with_its_traceback_and_the_request(bundles_folder):
    async def fail():
        raise RuntimeError("the cause")

    with running(bundles_folder) as caller, logged_lines(JsonFormatter()) as lines:
        caller.app.router.add_api_route("/broken", fail)
        told = caller.get("/broken").json()
    failure = next(line for line in lines if line["event"] == "request failed")
    assert "RuntimeError: the cause" in failure["traceback"]
    assert failure["request_id"] == told["request_id"]


def test_a_caller_who_hangs_up_is_no_failure_of_ours(caller):
    with logged_lines(JsonFormatter()) as lines:
        assert caller.leave_midway("/retrieve") == []
    (line,) = lines
    assert (line["event"], line["status"]) == ("request", 499)


def test_a_trace_that_the_caller_began_is_told_in_the_log(caller):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with logged_lines(JsonFormatter()) as lines:
        caller.get("/livez", headers={"traceparent": parent})
        caller.get("/livez", headers={"traceparent": "00-nonsense"})
    assert lines[0]["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert "trace_id" not in lines[1]


def test_without_an_access_log_requests_leave_no_line(bundles_folder):
    with (
        running(bundles_folder, access_log=False) as caller,
        logged_lines(JsonFormatter()) as lines,
    ):
        caller.wait_for("ready")
    assert "request" not in [line["event"] for line in lines]


@pytest.mark.parametrize("odd", [2**70, "\ud800", {1, 2}, {3: "three"}])
def test_a_line_is_written_whatever_is_in_it(odd):
    assert json.loads(written({"odd": odd}))


def received_by_app(*messages, headers=()):
    """What an app receives of these messages behind the middleware, at two calls."""
    found, left = [], list(messages)

    async def receive():
        return left.pop(0) if left else await asyncio.Event().wait()

    async def app(scope, receive, send):
        found.append(await receive())
        found.append(received(receive))

    limit = BodyLimit(app, size_bytes=5, timeout_s=1.0, size_by_path={"/long": 9})
    asyncio.run(limit({"type": "http", "path": "/", "headers": headers}, receive, None))
    return found


def part(body, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


def whole(body):
    return {"type": "http.request", "body": body}


def test_a_body_in_parts_is_delivered_whole_then_the_disconnect():
    gone = {"type": "http.disconnect"}
    assert received_by_app(part(b"abc", more=True), part(b"de"), gone) == [
        whole(b"abcde"),
        gone,
    ]
    assert received_by_app(part(b"abcde")) == [whole(b"abcde"), None]


def test_a_client_that_left_before_its_body_came_is_told_as_such():
    gone = {"type": "http.disconnect"}
    assert received_by_app(gone, gone) == [gone, gone]
    assert received_by_app(part(b"abc", more=True), gone, gone) == [gone, gone]


def test_a_body_beyond_the_limit_is_refused_where_it_is_read():
    for messages in ([part(b"abcdef")], [part(b"abc", more=True), part(b"def", more=True)]):
        with pytest.raises(BodyTooLargeError, match="larger than 5 bytes"):
            received_by_app(*messages)
    with pytest.raises(BodyTooLargeError):
        received_by_app(part(b""), headers=[(b"content-length", b"6")])
