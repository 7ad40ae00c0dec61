from functools import partial

import pytest

from index.bundle.registry import BundleRegistry
from index.denylist import MAX_ITEMS, DenylistWatcher, local_denylist, redis_denylist
from service.bundle_watcher import LiveBundle
from service.logging_config import JsonFormatter
from service.metrics import Metrics
from service.retrieval_service import RetrievalService
from service.schemas.retrieval import RetrieveRequest
from tests.service.test_live_bundle import day
from tests.service.test_main import served
from tests.service.test_problems import problem
from tests.support.http_caller import logged_lines, running, until
from tests.support.redis_server import RedisServer
from tests.support.synthetic_bundle import publish_handmade

TOKEN = "a token"


def put(caller, token=TOKEN, **body):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return caller.ask("PUT", "/admin/denylist", json=body, headers=headers)


def told(caller):
    return caller.get("/readyz").json()["denylist"]


@pytest.fixture(scope="module")
def server():
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(params=["folder", "redis"])
def store_options(request):
    """Settings that mean this store; over a file, then over Redis."""
    if request.param == "folder":
        return {}
    server = request.getfixturevalue("server")
    server.client.flushall()
    return {"redis_url": server.url}


@pytest.fixture
def admin(tmp_path, store_options):
    publish_handmade(tmp_path, now=day(0))
    with running(tmp_path, admin_token=TOKEN, **store_options) as caller:
        caller.wait_for("ready")
        yield caller


def found_everywhere(caller):
    """The ids that each call returns, asked for everything."""
    known = [*caller.found(k=1_000), "item-2"][-2:][0]  # the last one of the live bundle
    questions = {"queries": [{"k": 1_000}, {"history": [known], "k": 1_000}]}
    popular, asked = caller.ask("POST", "/retrieve/batch", json=questions).json()["results"]
    similar = caller.get(f"/items/{known}/similar?k=1000").json()
    told = {"popular in a batch": popular, "in a batch": asked, "similar": similar}
    found = {
        call: [one["item_id"] for one in answer["candidates"]] for call, answer in told.items()
    }
    return found | {
        "user": caller.found(user_id="user-0", k=1_000, exclude_seen=False),
        "popular": caller.found(k=1_000),
        "unknown": caller.found(user_id="nobody", k=1_000),
    }


def is_gone(caller, *ids):
    return not any({*ids} & {*found} for found in found_everywhere(caller).values())


def test_a_denied_item_is_gone_from_every_answer_once_it_is_answered(admin):
    assert all("item-4" in found for found in found_everywhere(admin).values())
    answer = put(admin, items=["item-4", "item-0", "of a later bundle"])
    assert answer.status_code == 200, answer.text
    assert answer.json()["count"] == 3
    assert answer.json()["unknown_items"] == ["of a later bundle"]
    assert is_gone(admin, "item-4", "item-0")
    assert all(len(found) in (37, 38) for found in found_everywhere(admin).values())  # seen
    assert told(admin)["sequence"] == answer.json()["sequence"]
    assert told(admin)["count"] == 3
    assert put(admin, remove=["item-0"]).json()["count"] == 2
    assert all("item-0" in found for found in found_everywhere(admin).values())
    assert put(admin, add=["item-1"], remove=["item-4"]).json()["unknown_items"] == []
    assert is_gone(admin, "item-1")
    assert all("item-4" in found for found in found_everywhere(admin).values())


def test_a_list_that_others_change_is_followed(admin, tmp_path, store_options):
    url = store_options.get("redis_url")
    store = redis_denylist(url) if url else local_denylist(tmp_path / "denylist")
    changed = store.replace(["item-4"], 1.0)
    until(lambda: told(admin).get("sequence") == changed.sequence)
    until(lambda: is_gone(admin, "item-4"))


def test_an_addition_to_a_damaged_list_is_refused_and_the_good_list_holds(
    admin, tmp_path, store_options, request
):
    put(admin, items=["item-4"])
    file, key = tmp_path / "denylist", "esans:denylist:current"
    redis = request.getfixturevalue("server").client if store_options else None
    content = redis.get(key) if redis else file.read_bytes()
    for damaged in (content.replace(b"item-4", b"item-5"), b"nonsense"):
        _ = redis.set(key, damaged) if redis else file.write_bytes(damaged)
        told = problem(put(admin, add=["item-6"]), 409)["detail"]
        assert "write it anew with `python -m index denylist set`" in told
        assert is_gone(admin, "item-4")
    assert put(admin, items=["item-4", "item-6"]).json()["count"] == 2
    assert is_gone(admin, "item-4", "item-6")


def test_a_denied_item_stays_gone_across_bundles_and_restarts(admin, tmp_path, store_options):
    put(admin, items=["item-4", "new-4"])
    for number, prefix in enumerate(["new", "item", "new"], start=1):
        version = publish_handmade(tmp_path, now=day(number), prefix=prefix)
        until(lambda version=version: admin.get("/readyz").json()["bundle"] == version)
        assert is_gone(admin, "item-4", "new-4")
        assert f"{prefix}-5" in admin.found(k=1_000)
    with running(tmp_path, **store_options) as other:
        other.wait_for("ready")
        assert is_gone(other, "item-4", "new-4")


def test_what_is_denied_while_a_question_waits_is_not_in_its_answer(tmp_path):
    publish_handmade(tmp_path, now=day(0))
    store, metrics = local_denylist(tmp_path / "denylist"), Metrics()
    follower = DenylistWatcher(store, poll_s=0.02)
    live_bundle = LiveBundle(BundleRegistry(tmp_path), 0.02, metrics, deny=follower)
    live_bundle.start()
    try:
        live = until(lambda: live_bundle.readiness().get("bundle") and live_bundle.get())
        service = RetrievalService(None, None, live_bundle, None, metrics)
        process = partial(service.process, live, None)
        asked = RetrieveRequest(history=["item-2"], k=40)
        assert b'"item-4"' in process([asked])[0][1]
        sequence = store.replace(["item-4"], 1.0).sequence
        until(lambda: follower.is_in_force(sequence))
        assert b'"item-4"' not in process([asked])[0][1]
        assert b'"item-4"' not in process([asked], is_bounded=False)[0][1]
        publish_handmade(tmp_path, now=day(1))
        until(lambda: live_bundle.get().bundle is not live.bundle)
        assert live_bundle.denied_of(live) is live.denied  # whose rows are those of its bundle
    finally:
        live_bundle.stop()


def test_where_every_item_is_denied_the_answers_are_empty(admin):
    put(admin, items=[f"item-{row}" for row in range(40)])
    assert {len(found) for found in found_everywhere(admin).values()} == {0}
    put(admin, items=[])
    assert len(admin.found(k=1_000)) == 40


def test_the_list_is_told_in_the_metrics(admin):
    put(admin, items=["item-4", "item-5"])
    assert admin.metric("esans_denied_items") == 2
    assert admin.metric("esans_denylist_sequence") == told(admin)["sequence"]
    assert admin.metric("esans_denylist_up") == 1
    assert admin.metric('esans_denylist_changes_total{result="live"}') == 1
    assert admin.metric("esans_denylist_errors_total") == 0


@pytest.mark.parametrize("token", [None, "wrong"])
def test_the_call_wants_the_token(admin, caller, token):
    problem(put(admin, token, items=[]), 401)
    problem(put(caller, TOKEN, items=[]), 404)


@pytest.mark.parametrize(
    ("body", "place", "expected"),
    [
        ({}, "the body", "give either items, or add and remove"),
        ({"items": [], "add": ["a"]}, "the body", "give either items, or add and remove"),
        ({"add": [], "remove": []}, "the body", "give either items, or add and remove"),
        ({"items": [""]}, "items.0", "an id is text"),
        ({"items": ["x" * 513]}, "items.0", "an id is text"),
        ({"items": [1.5]}, "items.0", "an id is text"),
        ({"item": []}, "item", "no such key here"),
        ({"items": ["a"] * (MAX_ITEMS + 1)}, "items", "at most 100000"),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused_by_place(admin, body, place, expected):
    faults = problem(put(admin, **body), 422)["errors"]
    assert any(one["location"] == place and expected in one["expected"] for one in faults)


def test_the_longest_list_is_taken_and_one_more_is_not(admin):
    ids = [f"an item with the number {number}" for number in range(MAX_ITEMS)]
    assert put(admin, items=ids).json()["count"] == MAX_ITEMS
    assert "expected at most 100,000" in problem(put(admin, add=["more"]), 422)["detail"]
    assert put(admin, items=["item-4", 7]).json()["unknown_items"] == ["7"]
    assert is_gone(admin, "item-4")


@pytest.fixture
def with_redis(tmp_path):
    """An app over a Redis of its own, which it may write beside its bundles, and that Redis."""
    server = RedisServer().start()
    publish_handmade(tmp_path, now=day(0))
    try:
        with running(tmp_path, admin_token=TOKEN, redis_url=server.url) as caller:
            caller.wait_for("ready")
            yield caller, server
    finally:
        server.stop()


def test_a_denied_item_never_comes_back_whatever_becomes_of_redis(with_redis):
    caller, server = with_redis
    sequence = put(caller, items=["item-4"]).json()["sequence"]
    server.client.flushall()
    assert put(caller, add=["item-5"]).json()["count"] == 2  # put back first, then changed
    server.client.set("esans:denylist:current", b"nonsense")
    until(lambda: told(caller)["status"] == "rejected")
    assert is_gone(caller, "item-4", "item-5")
    assert "python -m index denylist set" in problem(put(caller, add=["item-6"]), 409)["detail"]
    server.client.flushall()
    until(lambda: told(caller)["status"] == "following")
    server.freeze()
    until(lambda: told(caller)["status"] == "unreachable")
    assert is_gone(caller, "item-4", "item-5")
    problem(put(caller, add=["item-6"]), 503)
    server.thaw()
    server.kill()
    until(lambda: told(caller)["status"] == "unreachable")
    assert caller.get("/readyz").status_code == 200
    assert caller.metric("esans_denylist_up") == 0
    assert is_gone(caller, "item-4", "item-5")
    server.start()
    until(lambda: redis_denylist(server.url).read() is not None)
    assert redis_denylist(server.url).read().ids == ("item-4", "item-5")
    assert told(caller)["sequence"] > sequence


def test_who_starts_while_redis_is_empty_or_away_takes_the_copy_among_the_bundles(
    with_redis, tmp_path
):
    caller, server = with_redis
    put(caller, items=["item-4"])
    server.kill()
    with running(tmp_path, redis_url=server.url) as late:
        late.wait_for("ready")
        assert is_gone(late, "item-4")
    with running(tmp_path) as without_redis:
        without_redis.wait_for("ready")
        assert is_gone(without_redis, "item-4")


def test_a_copy_of_its_own_serves_where_the_bundles_hold_none(with_redis, tmp_path):
    caller, server = with_redis
    copy = tmp_path / "own" / "copy"
    copy.parent.mkdir()
    with running(tmp_path, redis_url=server.url, denylist_copy=copy) as first:
        first.wait_for("ready")
        put(caller, items=["item-4"])
        until(lambda: local_denylist(copy).read() is not None)
    until(lambda: local_denylist(tmp_path / "denylist").read() is not None)
    (tmp_path / "denylist").unlink()
    server.kill()
    with running(tmp_path, redis_url=server.url, denylist_copy=copy) as second:
        second.wait_for("ready")
        assert is_gone(second, "item-4")
    with running(tmp_path / "elsewhere", redis_url=server.url) as bare:
        until(lambda: told(bare)["status"] == "unreachable")
        assert "count" not in told(bare)  # as told in docs/operations.md


def test_what_is_denied_is_in_no_log(admin):
    with logged_lines(JsonFormatter()) as lines:
        put(admin, items=["item-4"])
    assert not any("item-4" in str(line) or TOKEN in str(line) for line in lines)


def test_two_services_follow_one_list(tmp_path):
    publish_handmade(tmp_path, now=day(0))
    with (
        served(tmp_path, ESANS_ADMIN_TOKEN=TOKEN) as (one, _),
        served(tmp_path) as (other, _),
    ):
        for client in (one, other):
            until(lambda client=client: client.get("/readyz").status_code == 200)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = one.put("/admin/denylist", headers=headers, json={"items": ["item-0"]})
        assert answer.json()["count"] == 1
        assert best_of(one) == "item-1"
        until(lambda: best_of(other) == "item-1")


def best_of(client):
    return client.post("/retrieve", json={"k": 1}).json()["candidates"][0]["item_id"]
