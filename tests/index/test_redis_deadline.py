"""A server that sends a byte at a time does not hold an operation for ever."""

import pytest

from index.denylist import redis_denylist
from index.errors import StoreUnreachableError
from index.storage.redis_client import RedisClient
from tests.support.cluster_maps import hashes, numbered_map, redis_maps, wait_for
from tests.support.dripping_server import dripping_server

A = numbered_map(0)
TIMEOUT_S = 0.05  # of one read; the whole operation takes at most 20 of them


@pytest.fixture
def drip():
    with dripping_server() as server:
        yield server
        assert not server.is_exhausted


@pytest.mark.parametrize(
    "call",
    [
        lambda url: redis_maps(url, timeout_s=TIMEOUT_S).pointer(),
        lambda url: redis_maps(url, timeout_s=TIMEOUT_S).list_maps(),
        lambda url: redis_denylist(url, timeout_s=TIMEOUT_S).load(),
        lambda url: redis_denylist(url, timeout_s=TIMEOUT_S).replace(["a"], 1.0),
    ],
    ids=["pointer", "list", "load", "replace"],
)
def test_operation_on_dripping_server_times_out(drip, call):
    with pytest.raises(StoreUnreachableError):
        call(drip.url)


def test_notifications_of_dripping_server_time_out(drip):
    notifications = RedisClient(drip.url, TIMEOUT_S).listen("channel")
    assert not notifications.wait(0.01)
    notifications.close()


def test_watcher_of_dripping_server_keeps_its_map(drip, following):
    watcher = following(redis_maps(drip.url, timeout_s=TIMEOUT_S), hashes(), own=A)
    wait_for(watcher, "unreachable", A.version)
    assert watcher.poll_now(60)
