"""A Redis that answers nonsense: told, never taken for an answer, mended by itself."""

import pytest

from index.errors import StoreUnreachableError
from tests.support.cluster_maps import hashes, numbered, redis_maps, wait_for
from tests.support.corrupt_bytes import INVALID_REPLIES, corrupting_proxy
from tests.support.redis_server import wait_until

A, B, C = (numbered(number) for number in range(3))  # A is in `server` already
KNOWN = hashes()
SOON_S = 0.2


@pytest.fixture
def garbler(server):
    with corrupting_proxy(server) as garbler:
        yield garbler


@pytest.mark.parametrize("kind", INVALID_REPLIES)
def test_a_garbled_answer_is_told_and_the_next_call_is_clean(garbler, kind):
    store = redis_maps(f"redis://127.0.0.1:{garbler.port}/0", timeout_s=SOON_S)
    pointer = store.pointer()
    calls = {
        "pointer": store.pointer,
        "read": lambda: store.read(A.version),
        "listed": store.listed,
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
    assert store.read(A.version).version == A.version


@pytest.mark.parametrize("kind", INVALID_REPLIES)
def test_who_follows_a_redis_that_garbles_says_so_and_follows_on(server, garbler, following, kind):
    url = f"redis://127.0.0.1:{garbler.port}/0"
    follower = following(redis_maps(url, timeout_s=SOON_S), KNOWN)
    wait_for(follower, "following", A.version)
    held = follower.value
    garbler.reply = INVALID_REPLIES[kind]
    wait_for(follower, "unreachable", A.version)
    errors = follower.state.errors
    wait_until(lambda: follower.state.errors > errors + 2)  # it looks on
    assert follower.value is held
    assert f"{garbler.port}/0" in follower.state.reasons[0]
    garbler.reply = None
    wait_for(follower, "following", A.version)
    redis_maps(server.url).publish(B)
    wait_for(follower, "following", B.version)


@pytest.mark.parametrize("kind", INVALID_REPLIES)
def test_a_garbled_announcement_is_none_and_the_next_one_is_heard(server, garbler, kind):
    url = f"redis://127.0.0.1:{garbler.port}/0"
    heard = redis_maps(url, timeout_s=SOON_S).subscribe()
    store = redis_maps(server.url)

    def hears():
        store.publish(B)
        return heard.wait(0.1)

    wait_until(hears)
    garbler.reply = INVALID_REPLIES[kind]
    for _ in range(3):
        hears()
    garbler.reply = None
    wait_until(hears)
    heard.close()
