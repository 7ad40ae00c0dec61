"""Garbled responses of Redis are reported, never parsed as data, and recovered from."""

import pytest

from index.errors import StoreUnreachableError
from tests.support.cluster_maps import hashes, numbered_map, redis_maps, wait_for
from tests.support.corrupt_bytes import INVALID_REPLIES, corrupting_proxy
from tests.support.redis_server import wait_until

A, B, C = (numbered_map(number) for number in range(3))  # A is in `server` already
KNOWN = hashes()
TIMEOUT_S = 0.2


@pytest.fixture
def garbler(server):
    with corrupting_proxy(server) as garbler:
        yield garbler


@pytest.mark.parametrize("kind", INVALID_REPLIES)
def test_garbled_response_raises_and_next_call_succeeds(garbler, kind):
    store = redis_maps(f"redis://127.0.0.1:{garbler.port}/0", timeout_s=TIMEOUT_S)
    pointer = store.pointer()
    calls = {
        "pointer": store.pointer,
        "read": lambda: store.load(A.version),
        "list_maps": store.list_maps,
        "publish": lambda: store.publish(B),
        "pin": store.pin,
        "prune": lambda: store.prune(0),
    }
    for call in calls.values():
        garbler.reply = INVALID_REPLIES[kind]
        with pytest.raises(StoreUnreachableError, match=f"{garbler.port}/0"):
            call()
        garbler.reply = None
        assert store.pointer() == pointer
    assert store.load(A.version).version == A.version


@pytest.mark.parametrize("kind", INVALID_REPLIES)
def test_watcher_recovers_from_garbled_responses(server, garbler, following, kind):
    url = f"redis://127.0.0.1:{garbler.port}/0"
    watcher = following(redis_maps(url, timeout_s=TIMEOUT_S), KNOWN)
    wait_for(watcher, "following", A.version)
    active = watcher.value
    garbler.reply = INVALID_REPLIES[kind]
    wait_for(watcher, "unreachable", A.version)
    errors = watcher.state.errors
    wait_until(lambda: watcher.state.errors > errors + 2)  # polling continues
    assert watcher.value is active
    assert f"{garbler.port}/0" in watcher.state.reasons[0]
    garbler.reply = None
    wait_for(watcher, "following", A.version)
    redis_maps(server.url).publish(B)
    wait_for(watcher, "following", B.version)


@pytest.mark.parametrize("kind", INVALID_REPLIES)
def test_notifications_recover_from_garbled_messages(server, garbler, kind):
    url = f"redis://127.0.0.1:{garbler.port}/0"
    notifications = redis_maps(url, timeout_s=TIMEOUT_S).subscribe()
    store = redis_maps(server.url)

    def publish_and_wait():
        store.publish(B)
        return notifications.wait(0.1)

    wait_until(publish_and_wait)
    garbler.reply = INVALID_REPLIES[kind]
    for _ in range(3):
        publish_and_wait()
    garbler.reply = None
    wait_until(publish_and_wait)
    notifications.close()
