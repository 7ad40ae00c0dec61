"""Publishes to Redis that are interrupted or too slow."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from index.errors import StoreUnreachableError
from tests.conftest import ROOT
from tests.support.cluster_maps import (
    hashes,
    list_keys,
    list_staged_keys,
    numbered_map,
    redis_maps,
    wait_for,
)
from tests.support.redis_server import wait_until

A, B = (numbered_map(number) for number in range(2))  # A is in `server` already
KNOWN = hashes()
LARGE = numbered_map(7, count=1_000_000)  # 16 MB

PUBLISHER = """
import sys
from tests.support.cluster_maps import redis_maps
from tests.support.cluster_maps import numbered_map

store = redis_maps(sys.argv[1], staged_s=1.0)
large = numbered_map(5, count=1_000_000)
while True:
    store.publish(large)
    store.roll_back()
    store.prune(0)
"""


def kill_while_staging(server):
    """Kill a publisher while chunks are staged; return whether staged chunks remain."""
    command = [sys.executable, "-c", PUBLISHER, server.url]
    with subprocess.Popen(command, cwd=ROOT) as publisher:
        wait_until(lambda: list_staged_keys(server))
        os.kill(publisher.pid, signal.SIGKILL)
    return bool(list_staged_keys(server))


def test_publisher_killed_while_staging_leaves_nothing(server):
    store = redis_maps(server.url)
    wait_until(lambda: kill_while_staging(server), deadline_s=120)
    reader = redis_maps(server.url)
    current = reader.pointer()
    assert reader.load(current.version).version == current.version
    wait_until(lambda: not list_staged_keys(server))
    store.pin(A.version)
    store.prune(0)
    versions = {name.split(":")[2] for name in list_keys(server)}
    assert versions - {"current"} <= {A.version, reader.pointer().previous}


def test_redis_killed_during_publish_recovers(server, following):
    watcher = following(redis_maps(server.url), KNOWN)
    wait_for(watcher, "following", A.version)
    errors = []

    def publish_repeatedly():
        store = redis_maps(server.url)
        try:
            while True:
                store.publish(LARGE)
        except StoreUnreachableError as error:
            errors.append(error)

    publisher = threading.Thread(target=publish_repeatedly)
    publisher.start()
    wait_until(lambda: list_staged_keys(server))
    server.kill()
    publisher.join()
    assert errors
    wait_for(watcher, "unreachable", A.version)
    server.start()
    redis_maps(server.url).publish(B)
    wait_for(watcher, "following", B.version)


def test_publish_slower_than_staging_ttl_fails(server):
    store = redis_maps(server.url, staged_s=0.001)
    before = redis_maps(server.url).pointer()
    with pytest.raises(StoreUnreachableError, match=r"took longer than 0\.001 s"):
        store.publish(LARGE)
    assert store.pointer() == before
