"""Recovery from faults of Redis: killed, frozen, flushed, full, or with another password."""

import time

import pytest

from index.errors import StoreFullError, StoreUnreachableError
from tests.support.cluster_maps import hashes, list_keys, numbered_map, redis_maps, wait_for
from tests.support.redis_server import wait_until

A, B, C = (numbered_map(number) for number in range(3))  # A is in `server` already
KNOWN = hashes()
FULL = ("--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
TOO_LARGE = numbered_map(7, count=1_000_000)  # 16 MB
TIMEOUT_S = 0.2  # long enough for a busy machine, short enough for a test


def test_watcher_repopulates_restarted_redis(server, following):
    store = redis_maps(server.url)
    pointer = store.pointer()
    watcher = following(redis_maps(server.url), KNOWN)
    wait_for(watcher, "following", A.version)
    active = watcher.value
    server.kill()
    wait_for(watcher, "unreachable", A.version)
    assert "start Redis, or correct the URL" in watcher.state.reasons[0]
    assert watcher.value is active
    server.start()
    wait_for(watcher, "following", A.version)
    assert store.pointer() == pointer
    assert store.load(A.version).version == A.version
    store.publish(B)
    wait_for(watcher, "following", B.version)


def test_two_watchers_repopulate_flushed_redis(server, following):
    store = redis_maps(server.url)
    watchers = [following(redis_maps(server.url), KNOWN) for _ in range(2)]
    pointer = store.publish(B)
    for watcher in watchers:
        wait_for(watcher, "following", B.version)
    for _ in range(5):
        server.client.flushall()
        wait_until(lambda: store.pointer() == pointer)
        assert store.load(B.version).version == B.version
        wait_until(lambda: all(server.client.pttl(name) < 0 for name in list_keys(server)))


def test_watcher_recovers_from_frozen_redis(server, following):
    watcher = following(redis_maps(server.url, timeout_s=TIMEOUT_S), KNOWN)
    wait_for(watcher, "following", A.version)
    server.freeze()
    wait_for(watcher, "unreachable", A.version)
    with pytest.raises(StoreUnreachableError, match=r"expected a response within 0\.2 s"):
        redis_maps(server.url, timeout_s=TIMEOUT_S).publish(B)
    server.thaw()
    wait_for(watcher, "following", A.version)
    redis_maps(server.url).publish(B)
    wait_for(watcher, "following", B.version)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fail", "recover", "for_s"), [("freeze", "thaw", 10), ("kill", "start", 30)]
)
def test_watcher_recovers_after_long_outage(server, following, fail, recover, for_s):
    watcher = following(redis_maps(server.url), KNOWN, poll_s=2.0)
    wait_for(watcher, "following", A.version)
    getattr(server, fail)()
    wait_for(watcher, "unreachable", A.version)
    time.sleep(for_s)
    assert watcher.value.source.version == A.version
    getattr(server, recover)()
    wait_for(watcher, "following", A.version)


def test_watcher_rejects_damaged_chunk_until_repaired(server, following):
    store = redis_maps(server.url)
    watcher = following(redis_maps(server.url), KNOWN)
    wait_for(watcher, "following", A.version)
    server.client.setrange(f"esans:clusters:{A.version}:0", 0, b"\xff")
    late = following(redis_maps(server.url), KNOWN, own=B)
    wait_for(late, "rejected", B.version)
    assert "the chunks have sha256" in late.state.reasons[0]
    assert watcher.state.status == "following"  # it loaded the map before
    store.publish(A)
    wait_for(late, "following", A.version)


def test_watcher_recovers_from_changed_password(start_redis, following):
    server = start_redis("--requirepass", "first")
    store = redis_maps(f"unix://:first@{server.socket}")
    store.publish(A)
    watcher = following(redis_maps(f"unix://:first@{server.socket}"), KNOWN)
    wait_for(watcher, "following", A.version)
    server.kill()
    server.options = ("--requirepass", "second")
    server.start()
    wait_until(lambda: "correct user and password" in "".join(watcher.state.reasons))
    assert watcher.state.status == "unreachable"
    server.kill()
    server.options = ("--requirepass", "first")
    server.start()
    wait_for(watcher, "following", A.version)
    assert store.pointer() == watcher.value.pointer


def test_publish_to_full_redis_changes_nothing(start_redis, following):
    server = start_redis(*FULL)
    store = redis_maps(server.url)
    pointer = store.publish(A)
    watcher = following(redis_maps(server.url), KNOWN)
    wait_for(watcher, "following", A.version)
    before = list_keys(server)
    with pytest.raises(StoreFullError, match=r"expected free memory; raise maxmemory"):
        store.publish(TOO_LARGE)
    assert store.pointer() == pointer
    assert list_keys(server) == before
    assert store.load(A.version).version == A.version
    assert watcher.state.status == "following"
    store.publish(B)
    wait_for(watcher, "following", B.version)


def test_full_redis_can_be_read_and_pruned(start_redis):
    server = start_redis(*FULL)
    store = redis_maps(server.url)
    for cluster_map in (A, B, C):
        store.publish(cluster_map)
    server.client.config_set("maxmemory", 1)
    with pytest.raises(StoreFullError, match="python -m index clusters prune"):
        store.roll_back()
    assert store.load(C.version).version == C.version
    assert store.prune(0) == [A.version]
    server.client.config_set("maxmemory", "8mb")
    assert store.roll_back().version == B.version


def test_watcher_repopulates_full_redis_once_it_has_memory(start_redis, following):
    server = start_redis(*FULL)
    store = redis_maps(server.url)
    pointer = store.publish(A)
    watcher = following(redis_maps(server.url), KNOWN)
    wait_for(watcher, "following", A.version)
    server.client.config_set("maxmemory", 1)
    server.client.flushall()
    wait_until(lambda: "expected free memory" in "".join(watcher.state.reasons))
    assert watcher.state.status == "empty"
    server.client.config_set("maxmemory", "8mb")
    wait_until(lambda: store.pointer() == pointer)
    wait_for(watcher, "following", A.version)


def test_notification_triggers_poll(server, following):
    watcher = following(redis_maps(server.url), KNOWN, poll_s=3_600.0)
    wait_for(watcher, "following", A.version)
    wait_until(lambda: server.client.pubsub_numsub("esans:clusters:announce")[0][1] == 1)
    redis_maps(server.url).publish(B)
    wait_for(watcher, "following", B.version)


def test_notifications_resume_after_restart(server):
    store = redis_maps(server.url)
    notifications = store.subscribe()
    server.kill()
    assert not notifications.wait(0.01)
    server.start()
    wait_until(lambda: not notifications.wait(0.01) and server.client.pubsub_channels())
    store.publish(B)
    wait_until(lambda: notifications.wait(0.1))
    notifications.close()
