"""Who publishes into a Redis is killed in the midst of it, or Redis is, or is too slow."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from index.errors import StoreUnreachableError
from tests.conftest import ROOT
from tests.support.cluster_maps import hashes, names, numbered, redis_maps, staged, wait_for
from tests.support.redis_server import wait_until

A, B = (numbered(number) for number in range(2))  # A is in `server` already
KNOWN = hashes()
LARGE = numbered(7, count=1_000_000)  # 16 MB

PUBLISHER = """
import sys
from tests.support.cluster_maps import redis_maps
from tests.support.cluster_maps import numbered

store = redis_maps(sys.argv[1], staged_s=1.0)
large = numbered(5, count=1_000_000)
while True:
    store.publish(large)
    store.roll_back()
    store.prune(0)
"""


def kill_in_mid_publish(server):
    """Start a publisher and kill it while pieces are staged; return whether some were left."""
    command = [sys.executable, "-c", PUBLISHER, server.url]
    with subprocess.Popen(command, cwd=ROOT) as publisher:
        wait_until(lambda: staged(server))
        os.kill(publisher.pid, signal.SIGKILL)
    return bool(staged(server))


def test_a_publisher_killed_in_mid_publish_leaves_nothing_and_touches_nothing(server):
    store = redis_maps(server.url)
    wait_until(lambda: kill_in_mid_publish(server), deadline_s=120)
    left = redis_maps(server.url)
    assert left.read(left.pointer().version).version == left.pointer().version
    wait_until(lambda: not staged(server))
    store.pin(A.version)
    store.prune(0)
    versions = {name.split(":")[2] for name in names(server)}
    assert versions - {"current"} <= {A.version, left.pointer().previous}


def test_a_server_killed_in_mid_publish_is_told_and_published_into_again(server, following):
    follower = following(redis_maps(server.url), KNOWN)
    wait_for(follower, "following", A.version)
    failed = []

    def publish_on_and_on():
        store = redis_maps(server.url)
        try:
            while True:
                store.publish(LARGE)
        except StoreUnreachableError as error:
            failed.append(error)

    publisher = threading.Thread(target=publish_on_and_on)
    publisher.start()
    wait_until(lambda: staged(server))
    server.kill()
    publisher.join()
    assert failed
    wait_for(follower, "unreachable", A.version)
    server.start()
    redis_maps(server.url).publish(B)
    wait_for(follower, "following", B.version)


def test_writing_that_takes_longer_than_pieces_stay_is_told(server):
    store = redis_maps(server.url, staged_s=0.001)
    before = redis_maps(server.url).pointer()
    with pytest.raises(StoreUnreachableError, match=r"took longer than the 0\.001 s"):
        store.publish(LARGE)
    assert store.pointer() == before
