"""Redis is a cache: whatever becomes of it, /retrieve answers, and the rest recovers."""

import threading
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from index.cluster_map import ClusterMap
from index.errors import StoreFullError, StoreUnreachableError
from service.logging_config import JsonFormatter
from tests.service.test_admin import TOKEN, put
from tests.service.test_problems import problem
from tests.support.cluster_maps import redis_maps
from tests.support.http_caller import logged_lines, running, until
from tests.support.redis_server import RedisServer
from tests.support.service_process import served
from tests.support.synthetic_bundle import handmade_map, publish_handmade

FIRST, SECOND = handmade_map(shift=1), handmade_map(shift=2)
MEANWHILE = 30  # answers that must come while there is trouble
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


class Asker(threading.Thread):
    """Asks /retrieve without a pause, for clusters too, and keeps what is answered."""

    def __init__(self, caller):
        super().__init__()
        self._caller = caller
        self._ended = threading.Event()
        self.answers = []

    def run(self):
        while not self._ended.is_set():
            told = self._caller.retrieve(history=["item-0"], k=5, include=["clusters"])
            self.answers.append(told)

    def go_on(self):
        """Wait until a number of answers more has come."""
        wanted = len(self.answers) + MEANWHILE
        until(lambda: len(self.answers) >= wanted, LIMIT_S)

    def stop(self):
        self._ended.set()
        self.join()


@contextmanager
def asked_all_the_time(caller):
    """Ask through whatever happens inside; every answer must be right, and of a good map."""
    asker = Asker(caller)
    asker.start()
    try:
        yield asker
    finally:
        asker.stop()
    assert {one.status_code for one in asker.answers} == {200}
    for one in asker.answers:
        told = one.json()
        turn = {FIRST.version: 1, SECOND.version: 2}[told["clusters"]]
        for candidate in told["candidates"]:
            assert candidate["cluster"][0] == (int(candidate["item_id"][5:]) + turn) % 4


def shut_down(redis):
    redis.client.shutdown(nosave=True)
    redis.kill()  # what is left of its process


def lock_out(redis):
    """Ask for a password from now on, of those who are connected too."""
    redis.client.config_set("requirepass", "another")
    redis.client.client_kill_filter(_type="normal", skipme=True)
    redis.client.client_kill_filter(_type="pubsub", skipme=True)


def let_in(redis):
    redis.client.config_set("requirepass", "")


TROUBLES = {
    "killed": (RedisServer.kill, RedisServer.start),
    "stopped": (shut_down, RedisServer.start),
    "frozen": (RedisServer.freeze, RedisServer.thaw),
    "refusing the password": (lock_out, let_in),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_retrieve_answers_on_while_redis_is(name, caller, redis, store):
    begin, end = TROUBLES[name]
    errors = "esans_redis_errors_total"
    pointer = store.pointer()
    with (
        asked_all_the_time(caller) as asker,
        logged_lines(JsonFormatter(), "clusters") as lines,
    ):
        assert caller.metric("esans_redis_up") == 1
        assert caller.metric(errors) == 0
        begin(redis)
        told = caller.wait_for_clusters("unreachable", FIRST.version, limit_s=LIMIT_S)
        assert told["source"] == "redis"
        assert told["reasons"]
        asker.go_on()
        assert caller.get("/readyz").json()["status"] == "ready"
        assert caller.get("/clusters").json()["version"] == FIRST.version
        assert caller.negatives(positives=["item-0"], easy=1, hard=1).status_code == 200
        assert caller.metric("esans_redis_up") == 0
        assert caller.metric(errors) >= 1
        end(redis)
        caller.wait_for_clusters("following", FIRST.version, limit_s=LIMIT_S)
        assert caller.metric("esans_redis_up") == 1
        assert store.pointer() == pointer  # put back where it was lost
        store.publish(SECOND)
        caller.wait_for_clusters("following", SECOND.version, limit_s=LIMIT_S)
        asker.go_on()
    events = [line["event"] for line in lines]
    assert sum("unreachable" in event for event in events) >= 1
    assert "following" in events[-1]


def test_retrieve_answers_on_while_redis_is_out_of_memory(caller, redis, store):
    pointer = store.pointer()
    with asked_all_the_time(caller) as asker:
        redis.client.config_set("maxmemory", 1)
        with pytest.raises(StoreFullError):
            store.publish(SECOND)
        asker.go_on()
        caller.wait_for_clusters("following", FIRST.version)
        assert caller.metric("esans_redis_up") == 1
        assert store.pointer() == pointer
        redis.client.config_set("maxmemory", 0)
        store.publish(SECOND)
        caller.wait_for_clusters("following", SECOND.version, limit_s=LIMIT_S)
        asker.go_on()


def test_retrieve_answers_on_while_redis_is_killed_in_mid_publish(caller, redis, store):
    pointer = store.pointer()
    publisher = threading.Thread(target=publish_until_it_fails, args=(redis.url,))
    with asked_all_the_time(caller) as asker:
        publisher.start()
        until(lambda: redis.client.keys("*:staged:*"), LIMIT_S)
        redis.kill()
        publisher.join()
        caller.wait_for_clusters("unreachable", FIRST.version, limit_s=LIMIT_S)
        asker.go_on()
        redis.start()
        until(lambda: store.pointer() is not None, LIMIT_S)
        assert store.pointer().version == pointer.version
        caller.wait_for_clusters("following", FIRST.version, limit_s=LIMIT_S)


def publish_until_it_fails(url):
    """Publish a map that is on its way most of the time, and under a pin never current."""
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


@pytest.mark.parametrize("lose", [flush, restart])
def test_a_redis_that_lost_everything_is_given_the_last_good_map(lose, caller, redis, store):
    pointer = store.pointer()
    with (
        asked_all_the_time(caller) as asker,
        logged_lines(JsonFormatter(), "clusters") as lines,
    ):
        lose(redis)
        until(lambda: store.pointer() == pointer, LIMIT_S)
        caller.wait_for_clusters("following", FIRST.version, limit_s=LIMIT_S)
        asker.go_on()
    assert store.read(FIRST.version).version == FIRST.version
    assert any(f"{FIRST.version} put back" in line["event"] for line in lines)


def test_a_swap_is_seen_by_the_card_and_by_the_candidates(caller, store):
    pointer = store.publish(SECOND)
    caller.wait_for_clusters("following", SECOND.version)
    told = caller.get("/clusters").json()
    assert (told["version"], told["source"]) == (SECOND.version, "redis")
    assert (told["sequence"], told["is_pinned"]) == (pointer.sequence, False)
    assert told["made"]["turn"] == 2
    answer = caller.retrieve(history=["item-0"], k=5, include=["clusters"]).json()
    assert answer["clusters"] == SECOND.version
    for one in answer["candidates"]:
        assert one["cluster"][0] == (int(one["item_id"][5:]) + 2) % 4
    info = f'esans_cluster_map_info{{source="redis",version="{SECOND.version}"}}'
    assert caller.metric(info) == 1
    drawn = caller.negatives(positives=["item-0"], easy=1, hard=1).json()
    assert drawn["clusters"] == SECOND.version


def test_a_damaged_map_is_refused_and_the_last_good_one_stays(caller, redis, store):
    store.publish(SECOND)
    caller.wait_for_clusters("following", SECOND.version)
    (key, *_) = redis.client.keys(f"*:{FIRST.version}:0")
    redis.client.setrange(key, 8, b"\xff" * 8)
    with asked_all_the_time(caller) as asker:
        assert put(caller, action="rollback").status_code == 200
        told = caller.wait_for_clusters("rejected", SECOND.version)
        assert FIRST.version in " ".join(told["reasons"])
        asker.go_on()
        assert caller.get("/readyz").json()["status"] == "ready"
        assert caller.metric("esans_redis_up") == 1
        assert caller.metric('esans_cluster_map_swaps_total{result="rejected"}') == 1
        assert put(caller, action="rollback").status_code == 200
        caller.wait_for_clusters("following", SECOND.version)


def test_the_pointer_is_moved_over_http_and_held_by_a_pin(caller, store):
    store.publish(SECOND)
    told = put(caller, action="pin", version=FIRST.version).json()
    assert (told["version"], told["is_pinned"]) == (FIRST.version, True)
    store.publish(handmade_map(shift=3))
    until(lambda: caller.get("/clusters").json()["is_pinned"], LIMIT_S)
    assert caller.get("/clusters").json()["version"] == FIRST.version
    assert put(caller, action="unpin").json()["version"] == FIRST.version
    assert put(caller, action="rollback", version=SECOND.version).status_code == 200
    caller.wait_for_clusters("following", SECOND.version)
    problem(put(caller, action="pin", version="0" * 16), 404)


@pytest.mark.parametrize("trouble", [RedisServer.kill, RedisServer.freeze])
def test_an_operator_is_told_that_redis_is_away_while_others_are_answered(trouble, caller, redis):
    with asked_all_the_time(caller) as asker:
        trouble(redis)
        answer = put(caller, action="rollback")
        told = problem(answer, 503)
        asker.go_on()
    assert answer.headers["retry-after"] == "1"
    assert told["type"].endswith("store-unreachable")
    assert str(redis.socket) in told["detail"]


def test_a_service_that_begins_without_redis_finds_it_later(bundles, redis, store):
    store.publish(FIRST)
    redis.kill()
    with running(bundles, redis_url=redis.url) as caller:
        caller.wait_for("ready")
        caller.wait_for_clusters("unreachable")
        answer = caller.get("/clusters")
        assert "could be read so far" in problem(answer, 503)["detail"]
        assert answer.headers["retry-after"] == "1"
        assert caller.metric("esans_redis_up") == 0
        redis.start()
        caller.wait_for_clusters("empty")
        problem(caller.get("/clusters"), 404)
        store.publish(SECOND)
        caller.wait_for_clusters("following", SECOND.version)


def test_while_redis_is_away_the_bundles_own_map_serves(tmp_path, redis):
    publish_handmade(tmp_path, clusters=FIRST)
    redis.freeze()
    with running(tmp_path, redis_url=redis.url) as caller:
        told = caller.wait_for_clusters("unreachable", FIRST.version)
        assert told["source"] == "bundle"
        assert caller.negatives(positives=["item-0"], easy=1, hard=1).status_code == 200


def test_no_password_is_told_by_log_state_or_command(bundles, redis):
    redis.client.config_set("requirepass", "right")
    url = f"unix://:hush-hush@{redis.socket}"
    with served(bundles, ESANS_REDIS_URL=url, ESANS_ADMIN_TOKEN=TOKEN) as (client, lines):
        until(lambda: "unreachable" in client.get("/readyz").text, LIMIT_S)
        told = client.get("/readyz").text + client.get("/clusters").text
        told += put(_Over(client), action="pin").text
    told += " ".join(map(str, lines))
    assert "WRONGPASS" in told or "invalid" in told
    assert "hush-hush" not in told
    assert TOKEN not in told


class _Over:
    """What `put` asks, over a real connection."""

    def __init__(self, client):
        self._client = client

    def ask(self, method, path, **options):
        return self._client.request(method, path, **options)


def test_two_namespaces_do_not_meet(bundles, redis):
    redis_maps(redis.url, "theirs").publish(FIRST)
    with running(bundles, redis_url=redis.url, namespace="ours") as caller:
        caller.wait_for_clusters("empty")
        redis_maps(redis.url, "ours").publish(SECOND)
        caller.wait_for_clusters("following", SECOND.version)
