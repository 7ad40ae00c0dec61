"""Redis is a cache: /retrieve works through its failures, and cluster maps recover."""

import threading
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from index.cluster_map import ClusterMap
from index.errors import StoreFullError, StoreUnreachableError
from service.logging_config import JsonFormatter
from tests.support.admin import TOKEN, bearer, call_admin
from tests.support.cluster_maps import redis_maps
from tests.support.http_caller import logged_lines, running, until
from tests.support.problems import assert_problem
from tests.support.redis_server import RedisServer
from tests.support.service_process import start_service
from tests.support.synthetic_bundle import handmade_map, publish_handmade

FIRST, SECOND = handmade_map(shift=1), handmade_map(shift=2)
NUM_RESPONSES = 30  # responses required during each failure
LIMIT_S = 60


@pytest.fixture
def store(redis):
    return redis_maps(redis.url)


@pytest.fixture
def bundles(tmp_path):
    publish_handmade(tmp_path)
    return tmp_path


@pytest.fixture
def caller(bundles, redis, store):
    store.publish(FIRST)
    with running(bundles, redis_url=redis.url, admin_token=TOKEN) as caller:
        caller.wait_for_clusters("following", FIRST.version)
        yield caller


def put(caller, **body):
    return call_admin(caller, "PUT", "clusters/current", json=body)


class RetrieveLoop(threading.Thread):
    """Calls /retrieve with clusters in a loop and keeps the responses."""

    def __init__(self, caller):
        super().__init__()
        self._caller = caller
        self._stopping = threading.Event()
        self.responses = []

    def run(self):
        while not self._stopping.is_set():
            response = self._caller.retrieve(history=["item-0"], k=5, include=["clusters"])
            self.responses.append(response)

    def wait_for_more(self):
        """Wait for more responses."""
        target = len(self.responses) + NUM_RESPONSES
        until(lambda: len(self.responses) >= target, LIMIT_S)

    def stop(self):
        self._stopping.set()
        self.join()


@contextmanager
def retrieving(caller):
    """Call /retrieve throughout; each response must be correct and of a valid map."""
    loop = RetrieveLoop(caller)
    loop.start()
    try:
        yield loop
    finally:
        loop.stop()
    assert {response.status_code for response in loop.responses} == {200}
    for response in loop.responses:
        result = response.json()
        offset = {FIRST.version: 1, SECOND.version: 2}[result["clusters"]]
        for candidate in result["candidates"]:
            assert candidate["cluster"][0] == (int(candidate["item_id"][5:]) + offset) % 4


def shut_down(redis):
    redis.client.shutdown(nosave=True)
    redis.kill()  # reaps the process


def require_password(redis):
    """Require an unknown password, also of connected clients."""
    redis.client.config_set("requirepass", "another")
    redis.client.client_kill_filter(_type="normal", skipme=True)
    redis.client.client_kill_filter(_type="pubsub", skipme=True)


def drop_password(redis):
    redis.client.config_set("requirepass", "")


FAILURES = {
    "killed": (RedisServer.kill, RedisServer.start),
    "shut down": (shut_down, RedisServer.start),
    "frozen": (RedisServer.freeze, RedisServer.thaw),
    "rejecting the password": (require_password, drop_password),
}


@pytest.mark.parametrize("name", FAILURES)
def test_retrieve_continues_through_redis_failure(name, caller, redis, store):
    begin, end = FAILURES[name]
    errors = "esans_redis_errors_total"
    pointer = store.pointer()
    with retrieving(caller) as loop, logged_lines(JsonFormatter(), "clusters") as lines:
        assert caller.metric("esans_redis_up") == 1
        assert caller.metric(errors) == 0
        begin(redis)
        status = caller.wait_for_clusters("unreachable", FIRST.version, limit_s=LIMIT_S)
        assert status["source"] == "redis"
        assert status["reasons"]
        loop.wait_for_more()
        assert caller.get("/readyz").json()["status"] == "ready"
        assert caller.get("/clusters").json()["version"] == FIRST.version
        assert caller.negatives(positives=["item-0"], easy=1, hard=1).status_code == 200
        assert caller.metric("esans_redis_up") == 0
        assert caller.metric(errors) >= 1
        end(redis)
        caller.wait_for_clusters("following", FIRST.version, limit_s=LIMIT_S)
        assert caller.metric("esans_redis_up") == 1
        assert store.pointer() == pointer  # repopulated if it was lost
        store.publish(SECOND)
        caller.wait_for_clusters("following", SECOND.version, limit_s=LIMIT_S)
        loop.wait_for_more()
    events = [line["event"] for line in lines]
    assert sum("unreachable" in event for event in events) >= 1
    assert "following" in events[-1]


def test_retrieve_continues_while_redis_is_full(caller, redis, store):
    pointer = store.pointer()
    with retrieving(caller) as loop:
        redis.client.config_set("maxmemory", 1)
        with pytest.raises(StoreFullError):
            store.publish(SECOND)
        loop.wait_for_more()
        caller.wait_for_clusters("following", FIRST.version)
        assert caller.metric("esans_redis_up") == 1
        assert store.pointer() == pointer
        redis.client.config_set("maxmemory", 0)
        store.publish(SECOND)
        caller.wait_for_clusters("following", SECOND.version, limit_s=LIMIT_S)
        loop.wait_for_more()


def test_retrieve_continues_when_redis_dies_mid_publish(caller, redis, store):
    pointer = store.pointer()
    publisher = threading.Thread(target=publish_until_it_fails, args=(redis.url,))
    with retrieving(caller) as loop:
        publisher.start()
        until(lambda: redis.client.keys("*:staged:*"), LIMIT_S)
        redis.kill()
        publisher.join()
        caller.wait_for_clusters("unreachable", FIRST.version, limit_s=LIMIT_S)
        loop.wait_for_more()
        redis.start()
        until(lambda: store.pointer() is not None, LIMIT_S)
        assert store.pointer().version == pointer.version
        caller.wait_for_clusters("following", FIRST.version, limit_s=LIMIT_S)


def publish_until_it_fails(url):
    """Publish a map whose upload takes most of the time and which a pin keeps from going live."""
    store, large = redis_maps(url), large_map()
    store.pin()
    with suppress(StoreUnreachableError):
        while True:
            store.publish(large)


def large_map():
    codes = np.zeros(1_000_000, np.int32)
    hashes = np.arange(1_000_000, dtype=np.uint64)
    return ClusterMap(codes, codes, np.ones((1, 4), np.float32), hashes)


def flush(redis):
    redis.client.flushall()


def restart(redis):
    redis.kill()
    redis.start()


@pytest.mark.parametrize("clear", [flush, restart])
def test_empty_redis_is_repopulated_with_last_valid_map(clear, caller, redis, store):
    pointer = store.pointer()
    with retrieving(caller) as loop, logged_lines(JsonFormatter(), "clusters") as lines:
        clear(redis)
        until(lambda: store.pointer() == pointer, LIMIT_S)
        caller.wait_for_clusters("following", FIRST.version, limit_s=LIMIT_S)
        loop.wait_for_more()
    assert store.load(FIRST.version).version == FIRST.version
    assert any(f"{FIRST.version} restored" in line["event"] for line in lines)


def test_swap_is_visible_in_clusters_and_candidates(caller, store):
    pointer = store.publish(SECOND)
    caller.wait_for_clusters("following", SECOND.version)
    clusters = caller.get("/clusters").json()
    assert (clusters["version"], clusters["source"]) == (SECOND.version, "redis")
    assert (clusters["sequence"], clusters["is_pinned"]) == (pointer.sequence, False)
    assert clusters["made"]["turn"] == 2
    result = caller.retrieve(history=["item-0"], k=5, include=["clusters"]).json()
    assert result["clusters"] == SECOND.version
    for candidate in result["candidates"]:
        assert candidate["cluster"][0] == (int(candidate["item_id"][5:]) + 2) % 4
    info = f'esans_cluster_map_info{{source="redis",version="{SECOND.version}"}}'
    assert caller.metric(info) == 1
    negatives = caller.negatives(positives=["item-0"], easy=1, hard=1).json()
    assert negatives["clusters"] == SECOND.version


def test_damaged_map_is_rejected_and_last_valid_stays(caller, redis, store):
    store.publish(SECOND)
    caller.wait_for_clusters("following", SECOND.version)
    (key, *_) = redis.client.keys(f"*:{FIRST.version}:0")
    redis.client.setrange(key, 8, b"\xff" * 8)
    with retrieving(caller) as loop:
        assert put(caller, action="rollback").status_code == 200
        status = caller.wait_for_clusters("rejected", SECOND.version)
        assert FIRST.version in " ".join(status["reasons"])
        loop.wait_for_more()
        assert caller.get("/readyz").json()["status"] == "ready"
        assert caller.metric("esans_redis_up") == 1
        assert caller.metric('esans_cluster_map_swaps_total{result="rejected"}') == 1
        assert put(caller, action="rollback").status_code == 200
        caller.wait_for_clusters("following", SECOND.version)


def test_admin_call_pins_and_rolls_back_pointer(caller, store):
    store.publish(SECOND)
    pointer = put(caller, action="pin", version=FIRST.version).json()
    assert (pointer["version"], pointer["is_pinned"]) == (FIRST.version, True)
    store.publish(handmade_map(shift=3))
    until(lambda: caller.get("/clusters").json()["is_pinned"], LIMIT_S)
    assert caller.get("/clusters").json()["version"] == FIRST.version
    assert put(caller, action="unpin").json()["version"] == FIRST.version
    assert put(caller, action="rollback", version=SECOND.version).status_code == 200
    caller.wait_for_clusters("following", SECOND.version)
    assert_problem(put(caller, action="pin", version="0" * 16), 404, "no-cluster-map")


@pytest.mark.parametrize("fail", [RedisServer.kill, RedisServer.freeze])
def test_admin_call_reports_unreachable_redis(fail, caller, redis):
    with retrieving(caller) as loop:
        fail(redis)
        response = put(caller, action="rollback")
        problem = assert_problem(response, 503, "store-unreachable")
        loop.wait_for_more()
    assert response.headers["retry-after"] == "1"
    assert str(redis.socket) in problem["detail"]


def test_service_started_without_redis_connects_later(bundles, redis, store):
    store.publish(FIRST)
    redis.kill()
    with running(bundles, redis_url=redis.url) as caller:
        caller.wait_for("ready")
        caller.wait_for_clusters("unreachable")
        response = caller.get("/clusters")
        assert_problem(response, 503, "store-unreachable")
        assert response.headers["retry-after"] == "1"
        assert caller.metric("esans_redis_up") == 0
        redis.start()
        caller.wait_for_clusters("empty")
        assert_problem(caller.get("/clusters"), 404, "no-cluster-map")
        store.publish(SECOND)
        caller.wait_for_clusters("following", SECOND.version)


def test_bundle_map_is_used_while_redis_is_unreachable(tmp_path, redis):
    publish_handmade(tmp_path, clusters=FIRST)
    redis.freeze()
    with running(tmp_path, redis_url=redis.url) as caller:
        status = caller.wait_for_clusters("unreachable", FIRST.version)
        assert status["source"] == "bundle"
        assert caller.negatives(positives=["item-0"], easy=1, hard=1).status_code == 200


def test_redis_password_is_never_shown(bundles, redis):
    redis.client.config_set("requirepass", "right")
    url = f"unix://:hush-hush@{redis.socket}"
    with start_service(bundles, ESANS_REDIS_URL=url, ESANS_ADMIN_TOKEN=TOKEN) as (client, lines):
        until(lambda: "unreachable" in client.get("/readyz").text, LIMIT_S)
        shown = client.get("/readyz").text + client.get("/clusters").text
        shown += client.put(
            "/admin/clusters/current", headers=bearer(), json={"action": "pin"}
        ).text
    shown += " ".join(map(str, lines))
    assert "WRONGPASS" in shown or "invalid" in shown
    assert "hush-hush" not in shown
    assert TOKEN not in shown


def test_namespaces_are_isolated(bundles, redis):
    redis_maps(redis.url, "theirs").publish(FIRST)
    with running(bundles, redis_url=redis.url, namespace="ours") as caller:
        caller.wait_for_clusters("empty")
        redis_maps(redis.url, "ours").publish(SECOND)
        caller.wait_for_clusters("following", SECOND.version)
