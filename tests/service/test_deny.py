from contextlib import contextmanager
from functools import partial

import pytest

from index.bundle.registry import BundleRegistry
from index.denylist import MAX_ITEMS, DenylistWatcher, local_denylist, redis_denylist
from service.bundle_watcher import BundleWatcher
from service.logging_config import JsonFormatter
from service.metrics import Metrics
from service.retrieval_service import RetrievalService
from service.schemas.retrieval import RetrieveRequest
from tests.support.admin import TOKEN, bearer, call_admin
from tests.support.http_caller import logged_lines, running, until
from tests.support.problems import assert_problem
from tests.support.published_bundles import day
from tests.support.redis_server import RedisServer
from tests.support.service_process import start_service
from tests.support.synthetic_bundle import publish_handmade


def put(caller, token=TOKEN, **body):
    return call_admin(caller, "PUT", "denylist", token, json=body)


def denylist_status(caller):
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
    """Settings of an empty denylist store: a file, then Redis."""
    if request.param == "folder":
        return {}
    server = request.getfixturevalue("server")
    server.client.flushall()
    return {"redis_url": server.url}


@contextmanager
def serve(folder, options):
    """Run an app with a denylist store; yield its caller."""
    publish_handmade(folder, now=day(0))
    with running(folder, admin_token=TOKEN, **options) as caller:
        caller.wait_for("ready")
        yield caller


@pytest.fixture
def admin(tmp_path, store_options):
    with serve(tmp_path, store_options) as caller:
        yield caller


@pytest.fixture(scope="module", params=["folder", "redis"])
def rejecting(request, tmp_path_factory):
    """Caller of an app that gets only requests that it rejects."""
    options = {}
    if request.param == "redis":
        url = request.getfixturevalue("server").url
        options = {"redis_url": url, "namespace": "rejecting"}  # others empty theirs
    with serve(tmp_path_factory.mktemp("bundles"), options) as caller:
        yield caller
        assert "sequence" not in denylist_status(caller)  # nothing was published


def list_ids_by_call(caller):
    """Return all ids that each retrieval call returns."""
    known = [*caller.retrieve_ids(k=1_000), "item-2"][-2:][0]  # the last item of the live bundle
    batch = {"queries": [{"k": 1_000}, {"history": [known], "k": 1_000}]}
    popular, by_history = caller.request("POST", "/retrieve/batch", json=batch).json()["results"]
    similar = caller.get(f"/items/{known}/similar?k=1000").json()
    results = {"batch, popular": popular, "batch, history": by_history, "similar": similar}
    ids = {
        call: [candidate["item_id"] for candidate in result["candidates"]]
        for call, result in results.items()
    }
    return ids | {
        "user": caller.retrieve_ids(user_id="user-0", k=1_000, exclude_seen=False),
        "popular": caller.retrieve_ids(k=1_000),
        "unknown": caller.retrieve_ids(user_id="unknown", k=1_000),
    }


def is_gone(caller, *ids):
    return not any({*ids} & {*returned} for returned in list_ids_by_call(caller).values())


def test_denied_items_are_gone_when_the_call_returns(admin):
    assert all("item-4" in ids for ids in list_ids_by_call(admin).values())
    response = put(admin, items=["item-4", "item-0", "of a later bundle"])
    assert response.status_code == 200, response.text
    assert response.json()["count"] == 3
    assert response.json()["unknown_items"] == ["of a later bundle"]
    assert is_gone(admin, "item-4", "item-0")
    assert all(len(ids) in (37, 38) for ids in list_ids_by_call(admin).values())  # seen items
    assert denylist_status(admin)["sequence"] == response.json()["sequence"]
    assert denylist_status(admin)["count"] == 3
    assert put(admin, remove=["item-0"]).json()["count"] == 2
    assert all("item-0" in ids for ids in list_ids_by_call(admin).values())
    assert put(admin, add=["item-1"], remove=["item-4"]).json()["unknown_items"] == []
    assert is_gone(admin, "item-1")
    assert all("item-4" in ids for ids in list_ids_by_call(admin).values())


def test_denylist_written_by_others_is_followed(admin, tmp_path, store_options):
    url = store_options.get("redis_url")
    store = redis_denylist(url) if url else local_denylist(tmp_path / "denylist")
    replaced = store.replace(["item-4"], 1.0)
    until(lambda: denylist_status(admin).get("sequence") == replaced.sequence)
    until(lambda: is_gone(admin, "item-4"))


def test_adding_to_damaged_denylist_returns_409(admin, tmp_path, store_options, request):
    put(admin, items=["item-4"])
    file, key = tmp_path / "denylist", "esans:denylist:current"
    redis = request.getfixturevalue("server").client if store_options else None
    content = redis.get(key) if redis else file.read_bytes()
    for damaged in (content.replace(b"item-4", b"item-5"), b"nonsense"):
        _ = redis.set(key, damaged) if redis else file.write_bytes(damaged)
        problem = assert_problem(put(admin, add=["item-6"]), 409, "invalid-denylist")
        assert "`python -m index denylist set`" in problem["detail"]
        assert is_gone(admin, "item-4")
    assert put(admin, items=["item-4", "item-6"]).json()["count"] == 2
    assert is_gone(admin, "item-4", "item-6")


def test_denylist_survives_bundle_swaps_and_restarts(admin, tmp_path, store_options):
    put(admin, items=["item-4", "new-4"])
    for number, prefix in enumerate(["new", "item", "new"], start=1):
        version = publish_handmade(tmp_path, now=day(number), prefix=prefix)
        until(lambda version=version: admin.get("/readyz").json()["bundle"] == version)
        assert is_gone(admin, "item-4", "new-4")
        assert f"{prefix}-5" in admin.retrieve_ids(k=1_000)
    with running(tmp_path, **store_options) as restarted:
        restarted.wait_for("ready")
        assert is_gone(restarted, "item-4", "new-4")


def test_item_denied_while_query_waits_is_not_returned(tmp_path):
    publish_handmade(tmp_path, now=day(0))
    store, metrics = local_denylist(tmp_path / "denylist"), Metrics()
    denylist = DenylistWatcher(store, poll_s=0.02)
    live_bundle = BundleWatcher(BundleRegistry(tmp_path), 0.02, metrics, denylist_watcher=denylist)
    live_bundle.start()
    try:
        live = until(lambda: live_bundle.readiness().get("bundle") and live_bundle.get())
        service = RetrievalService(None, None, live_bundle, None, metrics)
        process = partial(service.process, live, None)
        query = RetrieveRequest(history=["item-2"], k=40)
        assert b'"item-4"' in process([query])[0][1]
        sequence = store.replace(["item-4"], 1.0).sequence
        until(lambda: denylist.is_active(sequence))
        assert b'"item-4"' not in process([query])[0][1]
        assert b'"item-4"' not in process([query], is_bounded=False)[0][1]
        publish_handmade(tmp_path, now=day(1))
        until(lambda: live_bundle.get().bundle is not live.bundle)
        assert live_bundle.get_denied_rows(live) is live.denied  # rows of its own bundle
    finally:
        live_bundle.stop()


def test_denying_all_items_returns_empty_results(admin):
    put(admin, items=[f"item-{row}" for row in range(40)])
    assert {len(ids) for ids in list_ids_by_call(admin).values()} == {0}
    put(admin, items=[])
    assert len(admin.retrieve_ids(k=1_000)) == 40


def test_metrics_report_the_denylist(admin):
    put(admin, items=["item-4", "item-5"])
    assert admin.metric("esans_denied_items") == 2
    assert admin.metric("esans_denylist_sequence") == denylist_status(admin)["sequence"]
    assert admin.metric("esans_denylist_up") == 1
    assert admin.metric('esans_denylist_changes_total{result="live"}') == 1
    assert admin.metric("esans_denylist_errors_total") == 0


@pytest.mark.parametrize("token", [None, "wrong"])
def test_denylist_endpoint_without_token_is_rejected(rejecting, caller, token):
    assert_problem(put(rejecting, token, items=[]), 401, "unauthorized")
    assert_problem(put(caller, TOKEN, items=[]), 403, "admin-disabled")


@pytest.mark.parametrize(
    ("body", "field", "expected"),
    [
        ({}, "the body", "either `items`, or at least one of"),
        ({"items": [], "add": ["a"]}, "the body", "either `items`, or at least one of"),
        ({"add": [], "remove": []}, "the body", "either `items`, or at least one of"),
        ({"items": [""]}, "items.0", "an id is a string"),
        ({"items": ["x" * 513]}, "items.0", "an id is a string"),
        ({"items": [1.5]}, "items.0", "an id is a string"),
        ({"item": []}, "item", "no such field"),
        ({"items": ["a"] * (MAX_ITEMS + 1)}, "items", "at most 100000"),
    ],
)
def test_denylist_invalid_body_names_field(rejecting, body, field, expected):
    errors = assert_problem(put(rejecting, **body), 422)["errors"]
    assert any(error["location"] == field and expected in error["expected"] for error in errors)


def test_denylist_over_max_items_is_rejected(admin):
    ids = [f"an item with the number {number}" for number in range(MAX_ITEMS)]
    assert put(admin, items=ids).json()["count"] == MAX_ITEMS
    problem = assert_problem(put(admin, add=["more"]), 422, "too-many-denied")
    assert "100,000" in problem["detail"]
    assert put(admin, items=["item-4", 7]).json()["unknown_items"] == ["7"]
    assert is_gone(admin, "item-4")


@pytest.fixture
def with_redis(tmp_path):
    """An app with its own Redis and a writable folder of bundles, and that Redis."""
    server = RedisServer().start()
    publish_handmade(tmp_path, now=day(0))
    try:
        with running(tmp_path, admin_token=TOKEN, redis_url=server.url) as caller:
            caller.wait_for("ready")
            yield caller, server
    finally:
        server.stop()


def test_denied_items_stay_denied_through_redis_failures(with_redis):
    caller, server = with_redis
    sequence = put(caller, items=["item-4"]).json()["sequence"]
    server.client.flushall()
    assert put(caller, add=["item-5"]).json()["count"] == 2  # repopulated first, then changed
    server.client.set("esans:denylist:current", b"nonsense")
    until(lambda: denylist_status(caller)["status"] == "rejected")
    assert is_gone(caller, "item-4", "item-5")
    problem = assert_problem(put(caller, add=["item-6"]), 409, "invalid-denylist")
    assert "python -m index denylist set" in problem["detail"]
    server.client.flushall()
    until(lambda: denylist_status(caller)["status"] == "following")
    server.freeze()
    until(lambda: denylist_status(caller)["status"] == "unreachable")
    assert is_gone(caller, "item-4", "item-5")
    assert_problem(put(caller, add=["item-6"]), 503)
    server.thaw()
    server.kill()
    until(lambda: denylist_status(caller)["status"] == "unreachable")
    assert caller.get("/readyz").status_code == 200
    assert caller.metric("esans_denylist_up") == 0
    assert is_gone(caller, "item-4", "item-5")
    server.start()
    until(lambda: redis_denylist(server.url).load() is not None)
    assert redis_denylist(server.url).load().ids == ("item-4", "item-5")
    assert denylist_status(caller)["sequence"] > sequence


def test_startup_without_redis_uses_copy_beside_bundles(with_redis, tmp_path):
    caller, server = with_redis
    put(caller, items=["item-4"])
    server.kill()
    with running(tmp_path, redis_url=server.url) as restarted:
        restarted.wait_for("ready")
        assert is_gone(restarted, "item-4")
    with running(tmp_path) as without_redis:
        without_redis.wait_for("ready")
        assert is_gone(without_redis, "item-4")


def test_startup_without_redis_uses_denylist_copy(with_redis, tmp_path):
    caller, server = with_redis
    copy = tmp_path / "own" / "copy"
    copy.parent.mkdir()
    with running(tmp_path, redis_url=server.url, denylist_copy=copy) as first:
        first.wait_for("ready")
        put(caller, items=["item-4"])
        until(lambda: local_denylist(copy).load() is not None)
    until(lambda: local_denylist(tmp_path / "denylist").load() is not None)
    (tmp_path / "denylist").unlink()
    server.kill()
    with running(tmp_path, redis_url=server.url, denylist_copy=copy) as second:
        second.wait_for("ready")
        assert is_gone(second, "item-4")
    with running(tmp_path / "elsewhere", redis_url=server.url) as without_copy:
        until(lambda: denylist_status(without_copy)["status"] == "unreachable")
        assert "count" not in denylist_status(without_copy)  # see docs/operations.md


def test_logs_contain_no_denied_ids(admin):
    with logged_lines(JsonFormatter()) as lines:
        put(admin, items=["item-4"])
    assert not any("item-4" in str(line) or TOKEN in str(line) for line in lines)


def test_replicas_share_denylist(tmp_path):
    publish_handmade(tmp_path, now=day(0))
    with (
        start_service(tmp_path, ESANS_ADMIN_TOKEN=TOKEN) as (admin, _),
        start_service(tmp_path) as (replica, _),
    ):
        for client in (admin, replica):
            until(lambda client=client: client.get("/readyz").status_code == 200)
        response = admin.put("/admin/denylist", headers=bearer(), json={"items": ["item-0"]})
        assert response.json()["count"] == 1
        assert get_best_id(admin) == "item-1"
        until(lambda: get_best_id(replica) == "item-1")


def get_best_id(client):
    return client.post("/retrieve", json={"k": 1}).json()["candidates"][0]["item_id"]


@pytest.mark.parametrize("store_options", ["folder"], indirect=True)
def test_readyz_survives_sequence_beyond_64_bits(admin, tmp_path):
    assert put(admin, items=["item-1"]).status_code == 200
    path = tmp_path / "denylist"
    sequence = denylist_status(admin)["sequence"]
    path.write_bytes(path.read_bytes().replace(b"%d" % sequence, b"%d" % 2**64))
    until(lambda: denylist_status(admin)["status"] == "rejected")
    assert admin.get("/readyz").status_code == 200
    assert put(admin, items=["item-2"]).json()["count"] == 1
