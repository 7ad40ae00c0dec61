import re

import pytest

from service.logs import JsonFormatter
from tests.service.asking import logged_lines, running


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


def test_a_failure_is_logged_with_its_traceback_and_the_request(shelf_folder):
    async def fail():
        raise RuntimeError("the cause")

    with running(shelf_folder) as caller, logged_lines(JsonFormatter()) as lines:
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
