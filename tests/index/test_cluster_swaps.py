"""Concurrent readers and writers: maps are whole, the sequence grows, a pin holds."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from index.cluster_map_stores import open_cluster_maps
from index.errors import NoClusterMapError
from tests.conftest import ROOT
from tests.support.cluster_maps import (
    clear_store,
    is_local,
    list_versions,
    local_maps,
    numbered_map,
    redis_maps,
)

READERS = 4
LOCAL_SWAPS = 25  # a disk is slow
PAUSE_S = 0.003  # of a reader: a tight loop would only slow the writer down
MAPS = [numbered_map(number) for number in range(5)]
VERSIONS = {clusters.version: clusters for clusters in MAPS}


def watch(store, has_ended):
    """Load the current map until the end; return the sequences and versions seen."""
    seen = []
    while not has_ended.is_set():
        pointer = store.pointer()
        try:
            loaded = store.load(pointer.version)
        except NoClusterMapError:  # expired between the two calls
            continue
        expected = VERSIONS[pointer.version]
        np.testing.assert_array_equal(loaded.codes1, expected.codes1)
        np.testing.assert_array_equal(loaded.codes2, expected.codes2)
        np.testing.assert_array_equal(loaded.centroids, expected.centroids)
        seen.append((pointer.sequence, pointer.version))
        time.sleep(PAUSE_S)
    return seen


def swap(store, step):
    if step % 10 == 9:
        store.roll_back()
    else:
        store.publish(MAPS[step % len(MAPS)])


@pytest.mark.parametrize("swaps", [200, pytest.param(1_000, marks=pytest.mark.slow)])
def test_readers_see_whole_maps_during_swaps(open_store, swaps):
    store = open_store(keep_s=0.05)
    store.publish(MAPS[0])
    has_ended = threading.Event()
    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(watch, open_store(), has_ended) for _ in range(READERS)]
        try:
            for step in range(LOCAL_SWAPS if is_local(store) else swaps):
                swap(store, step)
        finally:
            has_ended.set()
    for reader in readers:
        sequences = [sequence for sequence, _ in reader.result()]
        assert sequences == sorted(sequences)
        assert len({version for _, version in reader.result()}) > 1


def test_concurrent_publishes_each_advance_the_pointer(open_store):
    racers = 6

    def publish(number):
        store = open_store()
        return [store.publish(MAPS[(number + step) % 5]).sequence for step in range(10)]

    with ThreadPoolExecutor(racers) as pool:
        sequences = [sequence for result in pool.map(publish, range(racers)) for sequence in result]
    assert len(set(sequences)) == racers * 10
    assert open_store().pointer().sequence == max(sequences)


def test_concurrent_publishes_keep_pin(open_store):
    store = open_store()
    for clusters in MAPS:
        store.publish(clusters)
    has_ended = threading.Event()

    def publish(number):
        own_store, step = open_store(), 0
        while not has_ended.is_set():
            own_store.publish(MAPS[(number + step) % 5])
            step += 1

    with ThreadPoolExecutor(3) as pool:
        racers = [pool.submit(publish, number) for number in range(3)]
        try:
            for clusters in MAPS * 4:
                assert store.pin(clusters.version).version == clusters.version
                for _ in range(3):
                    pointer = store.pointer()
                    assert (pointer.version, pointer.pinned) == (clusters.version, True)
                store.unpin()
        finally:
            has_ended.set()
    for racer in racers:
        racer.result()


RACER = """
import sys
from pathlib import Path

from index.cluster_map_stores import open_cluster_maps
from tests.support.cluster_maps import numbered_map

url, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
store = open_cluster_maps(url, folder)
for step in range(20):
    print(store.publish(numbered_map((number + step) % 5)).sequence)
"""


@pytest.mark.parametrize("kind", ["folder", "redis"])
def test_concurrent_processes_each_advance_the_pointer(kind, redis, tmp_path):
    url = redis.url if kind == "redis" else ""
    command = [sys.executable, "-c", RACER, url, str(tmp_path)]
    racers = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, cwd=ROOT)
        for number in range(3)
    ]
    outputs = [racer.communicate(timeout=120)[0].decode().split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    sequences = [int(sequence) for output in outputs for sequence in output]
    assert len(set(sequences)) == 60
    assert open_cluster_maps(url, tmp_path).pointer().sequence == max(sequences)


CALLS = st.one_of(
    st.tuples(st.just("publish"), st.integers(0, 4)),
    st.tuples(st.just("roll_back"), st.none() | st.integers(0, 4)),
    st.tuples(st.just("pin"), st.none() | st.integers(0, 4)),
    st.tuples(st.just("unpin"), st.none()),
    st.tuples(st.just("prune"), st.integers(0, 3)),
)


def outcome(store, call, argument):
    """Effect of a call: the pointer without its sequence, the stored maps, or the error."""
    try:
        if call == "publish":
            store.publish(MAPS[argument])
        elif call == "unpin":
            store.unpin()
        elif call == "prune":
            store.prune(argument)
        else:
            getattr(store, call)(None if argument is None else MAPS[argument].version)
    except NoClusterMapError as error:
        return type(error)
    pointer = store.pointer()
    state = (pointer.version, pointer.previous, pointer.pinned) if pointer else None
    is_kept = [info.expires_in_s is None for info in store.list_maps()]
    return state, list_versions(store), is_kept


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(calls=st.lists(CALLS, max_size=12))
def test_folder_and_redis_registries_behave_equally(calls, redis, tmp_path):
    folder = clear_store(local_maps(tmp_path / "clusters"))
    in_redis = clear_store(redis_maps(redis.url))
    sequence = 0
    for call, argument in calls:
        assert outcome(folder, call, argument) == outcome(in_redis, call, argument)
        pointer = in_redis.pointer()
        assert pointer is None or pointer.sequence >= sequence
        sequence = pointer.sequence if pointer else sequence
