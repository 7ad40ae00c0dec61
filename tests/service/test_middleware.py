import asyncio
import json
import re

import pytest

from service.errors import BodyTooLargeError
from service.logging_config import JsonFormatter, render_line
from service.middleware import BodyLimit
from service.request_queue import receive_nowait
from tests.support.http_caller import logged_lines, running


def test_safe_request_id_is_echoed(caller):
    response = caller.get("/livez", headers={"X-Request-ID": "Shop-1:a/b=c.d_e"})
    assert response.headers["x-request-id"] == "Shop-1:a/b=c.d_e"


@pytest.mark.parametrize("request_id", ["", " ", "a b", "x" * 129, 'quo"te', "<script>", "é"])
def test_unsafe_request_id_is_replaced(caller, request_id):
    response = caller.get("/livez", headers={"X-Request-ID": request_id.encode()})
    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


def test_generated_request_ids_are_unique(caller):
    first, second = (caller.get("/livez").headers["x-request-id"] for _ in range(2))
    assert first != second


def test_access_log_has_a_line_per_request(caller):
    with logged_lines(JsonFormatter()) as lines:
        caller.request("POST", "/retrieve", json={}, headers={"X-Request-ID": "one"})
        caller.get("/nowhere/user-17")
    first, second = lines
    assert (first["event"], first["level"], first["request_id"]) == ("request", "info", "one")
    assert (first["method"], first["route"], first["status"]) == ("POST", "/retrieve", 200)
    assert 0 < first["duration_ms"] < 10_000
    assert (second["route"], second["status"]) == ("unmatched", 404)


def test_unhandled_error_is_logged_with_traceback(bundles_folder):
    async def fail():
        raise RuntimeError("the cause")

    with running(bundles_folder) as caller, logged_lines(JsonFormatter()) as lines:
        caller.app.router.add_api_route("/broken", fail)
        problem = caller.get("/broken").json()
    failure = next(line for line in lines if line["event"] == "request failed")
    assert "RuntimeError: the cause" in failure["traceback"]
    assert failure["request_id"] == problem["request_id"]


def test_client_disconnect_is_logged_as_499(caller):
    with logged_lines(JsonFormatter()) as lines:
        assert caller.disconnect_mid_body("/retrieve") == []
    (line,) = lines
    assert (line["event"], line["status"]) == ("request", 499)


def test_traceparent_trace_id_is_logged(caller):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with logged_lines(JsonFormatter()) as lines:
        caller.get("/livez", headers={"traceparent": parent})
        caller.get("/livez", headers={"traceparent": "00-nonsense"})
    assert lines[0]["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert "trace_id" not in lines[1]


def test_access_log_disabled_logs_no_requests(bundles_folder):
    with (
        running(bundles_folder, access_log=False) as caller,
        logged_lines(JsonFormatter()) as lines,
    ):
        caller.wait_for("ready")
    assert "request" not in [line["event"] for line in lines]


@pytest.mark.parametrize("value", [2**70, "\ud800", {1, 2}, {3: "three"}])
def test_log_line_with_any_value_is_valid_json(value):
    assert json.loads(render_line({"value": value}))


def receive_twice(*messages, headers=()):
    """Return what two calls of `receive` give an app behind the middleware."""
    received_messages, pending = [], list(messages)

    async def receive():
        return pending.pop(0) if pending else await asyncio.Event().wait()

    async def app(scope, receive, send):
        received_messages.append(await receive())
        received_messages.append(receive_nowait(receive))

    limit = BodyLimit(app, size_bytes=5, timeout_s=1.0, size_by_path={"/long": 9})
    asyncio.run(limit({"type": "http", "path": "/", "headers": headers}, receive, None))
    return received_messages


def part(body, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


def whole(body):
    return {"type": "http.request", "body": body}


def test_chunked_body_arrives_whole_then_disconnect():
    disconnect = {"type": "http.disconnect"}
    assert receive_twice(part(b"abc", more=True), part(b"de"), disconnect) == [
        whole(b"abcde"),
        disconnect,
    ]
    assert receive_twice(part(b"abcde")) == [whole(b"abcde"), None]


def test_disconnect_before_body_is_delivered():
    disconnect = {"type": "http.disconnect"}
    assert receive_twice(disconnect, disconnect) == [disconnect] * 2
    assert receive_twice(part(b"abc", more=True), disconnect, disconnect) == [disconnect] * 2


def test_body_over_limit_raises_when_read():
    for messages in ([part(b"abcdef")], [part(b"abc", more=True), part(b"def", more=True)]):
        with pytest.raises(BodyTooLargeError, match="5 bytes"):
            receive_twice(*messages)
    with pytest.raises(BodyTooLargeError):
        receive_twice(part(b""), headers=[(b"content-length", b"6")])
