import json
from urllib.parse import quote, unquote

import pytest

from index.errors import ConfigError, EsansError, InvalidBundleError
from service.errors import TABLE
from tests.support.http_caller import running


def problem(response, status):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["status"] == status
    assert told["request_id"] == response.headers["x-request-id"]
    assert {"type", "title", "detail", "instance"} <= told.keys()
    return told


def descendants(error):
    return [error, *(deeper for one in error.__subclasses__() for deeper in descendants(one))]


def test_every_error_of_ours_has_a_status():
    ours = [one for one in descendants(EsansError) if one.__module__.startswith(("index", "serv"))]
    assert len(ours) > 10
    offline = {"EsansError", "ConfigError", "FaultsError", "DatasetError", "TrainingError"}
    assert {one.__name__ for one in ours if one not in TABLE} == {
        *offline,
        "WorseThanPopularityError",
    }
    assert all(400 <= row.status < 600 for row in TABLE.values())


@pytest.mark.parametrize(
    ("body", "place", "told"),
    [
        ('{"k": 0}', "k", "greater than or equal to 1"),
        ('{"k": 1001}', "k", "less than or equal to 1000"),
        ('{"k": "5"}', "k", "valid integer"),
        ('{"k": true}', "k", "valid integer"),
        ('{"k": 2.0}', "k", "valid integer"),
        ('{"k": null}', "k", "valid integer"),
        ('{"exclude_seen": "no"}', "exclude_seen", "valid boolean"),
        ('{"histroy": []}', "histroy", "no such key here"),
        ('{"history": "item-1"}', "history", "valid array"),
        ('{"history": ["a", 1.5]}', "history.1", "text of 1 to 512 characters or an integer"),
        ('{"history": [true]}', "history.0", "text of 1 to 512 characters or an integer"),
        ('{"history": [null]}', "history.0", "text of 1 to 512 characters or an integer"),
        ('{"history": [""]}', "history.0", "text of 1 to 512 characters or an integer"),
        ('{"exclude": [18446744073709551616]}', "exclude.0", "or an integer of 64 bits"),
        ('{"user_id": 1.0}', "user_id", "text of 1 to 512 characters or an integer"),
        (json.dumps({"user_id": "x" * 513}), "user_id", "text of 1 to 512 characters"),
        (json.dumps({"history": [1] * 10_001}), "history", "at most 10000"),
        (json.dumps({"exclude": [1] * 10_001}), "exclude", "at most 10000"),
        ('{"history": [', "the body", "Invalid JSON: EOF"),
        ('{"user_id": "\\ud800"}', "the body", "Invalid JSON"),
        ("", "the body", "Invalid JSON: EOF"),
        ("[]", "the body", "object"),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused_by_place(caller, body, place, told):
    answer = problem(caller.ask("POST", "/retrieve", content=body), 422)
    (fault,) = answer["errors"]
    assert fault["location"] == place
    assert told in fault["expected"]
    assert fault["received"]
    assert place in answer["detail"]


def test_all_faults_of_a_body_are_told_at_once(caller):
    answer = problem(caller.retrieve(k=0, history=[1.5], surprise=1), 422)
    assert [one["location"] for one in answer["errors"]] == ["history.0", "k", "surprise"]
    assert "and 2 more" in answer["detail"]


def test_of_very_many_faults_the_first_are_told(caller):
    answer = problem(caller.retrieve(**{f"surprise-{n}": 1 for n in range(1_000)}), 422)
    assert len(answer["errors"]) == 20
    assert "and 999 more" in answer["detail"]


def test_of_more_faults_than_are_read_their_number_is_told(caller):
    answer = problem(caller.retrieve(**{f"surprise-{n}": 1 for n in range(1_001)}), 422)
    (fault,) = answer["errors"]
    assert (fault["location"], fault["received"]) == ("the question", "1001 faults")
    assert "correct it, or send a part of it" in fault["expected"]


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/retrieve", {"history": ["a", *[1.5] * 5_000]}, "history.1"),
        ("/retrieve", {"exclude": [None] * 5_000}, "exclude.0"),
        ("/retrieve", {"filter": {"odd": [{}] * 900}}, "filter.odd.0"),
        ("/embed", {"items": [{"look": ["x"] * 5_000}]}, "items.0.look.0"),
        ("/negatives", {"positives": [1.5] * 5_000, "easy": 1, "hard": 1}, "positives.0"),
    ],
)
def test_of_a_list_the_first_fault_is_told(caller, path, body, place):
    (fault,) = problem(caller.ask("POST", path, json=body), 422)["errors"]
    assert fault["location"] == place


def test_of_a_long_list_the_beginning_is_told(caller):
    answer = problem(caller.retrieve(k=list(range(1_000))), 422)
    assert answer["errors"][0]["received"].startswith("[0, 1, 2, 3")
    assert len(answer["errors"][0]["received"]) < 100


def test_a_long_text_is_not_sent_back_whole(caller):
    answer = problem(caller.retrieve(user_id="x" * 100_000), 422)
    assert len(answer["errors"][0]["received"]) < 100


def test_the_longest_lists_are_read(bundles_folder):
    ids = [f"item-{row}" for row in range(10_000)]
    with running(bundles_folder) as caller:
        caller.wait_for("ready")
        told = caller.retrieve(history=ids, exclude=ids)
    assert told.status_code == 200
    assert len(told.json()["unknown_items"]) == 9_960


def test_a_body_beyond_the_limit_is_refused(bundles_folder):
    with running(bundles_folder, body_limit_bytes=2_000) as caller:
        told = problem(caller.ask("POST", "/retrieve", content=b" " * 2_001), 413)
    assert "larger than 2000 bytes" in told["detail"]


def test_a_body_without_a_length_is_counted_as_it_comes(bundles_folder):
    read = []

    async def pieces():
        for _ in range(1_000):
            read.append(1)
            yield b" " * 1_000

    with running(bundles_folder, body_limit_bytes=2_000) as caller:
        problem(caller.ask("POST", "/retrieve", content=pieces()), 413)
    assert len(read) < 10


def test_an_unknown_path_is_a_problem_too(caller):
    told = problem(caller.get("/retrieve/"), 404)
    assert told["instance"] == "/retrieve/"


@pytest.mark.parametrize("path", ["/a b/\u00e9?#%/\n", "/[::1", "/items/\u202e/"])
def test_a_problem_names_the_path_that_was_asked_as_it_would_be_asked_again(caller, path):
    told = problem(caller.get(quote(path)), 404)
    assert told["instance"].isascii()
    assert unquote(told["instance"]) == path


@pytest.mark.parametrize("host", ["[", "a b", "[::1", "x:y:z", "\xff"])
def test_a_host_that_is_none_fails_nothing(caller, host):
    problem(caller.get("/nowhere", headers={"Host": host.encode("latin-1")}), 404)
    problem(
        caller.ask("POST", "/retrieve", content="{", headers={"Host": host.encode("latin-1")}),
        422,
    )


def test_a_wrong_method_names_the_right_one(caller):
    answer = caller.get("/retrieve")
    problem(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_before_a_bundle_is_live_the_question_may_come_again_soon(empty):
    answer = empty.retrieve(history=["item-0"])
    told = problem(answer, 503)
    assert answer.headers["retry-after"] == "1"
    assert "no bundle is live yet (no bundle)" in told["detail"]
    problem(empty.get("/bundle"), 503)


@pytest.mark.parametrize("error", [RuntimeError("secret"), ConfigError("secret")])
def test_what_is_our_own_fault_is_a_500_that_tells_nothing(empty, error):
    async def fail():
        raise error

    empty.app.router.add_api_route("/broken", fail)
    answer = empty.get("/broken")
    problem(answer, 500)
    assert "secret" not in answer.text


def test_a_bundle_at_fault_is_a_503(empty):
    async def fail():
        raise InvalidBundleError("here", ["this is wrong"])

    empty.app.router.add_api_route("/faulty", fail)
    assert "this is wrong" in problem(empty.get("/faulty"), 503)["detail"]
