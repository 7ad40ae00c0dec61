"""Readers beside writers: a map is whole or not there, the sequence only grows, a pin holds."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from index.cluster_map_registry import open_cluster_maps
from index.errors import NoClusterMapError
from tests.conftest import ROOT
from tests.support.cluster_maps import (
    emptied,
    is_local,
    local_maps,
    numbered,
    redis_maps,
    versions_of,
)

SWAPS, READERS = 1_000, 4
MAPS = [numbered(number) for number in range(5)]
VERSIONS = {one.version: one for one in MAPS}


def watch(store, is_over):
    """Read what is current until all is over; return the sequences and versions seen."""
    seen = []
    while not is_over.is_set():
        pointer = store.pointer()
        try:
            found = store.read(pointer.version)
        except NoClusterMapError:  # superseded and expired between the two calls
            continue
        wanted = VERSIONS[pointer.version]
        np.testing.assert_array_equal(found.codes1, wanted.codes1)
        np.testing.assert_array_equal(found.codes2, wanted.codes2)
        np.testing.assert_array_equal(found.centroids, wanted.centroids)
        seen.append((pointer.sequence, pointer.version))
    return seen


def swap(store, step):
    if step % 10 == 9:
        store.roll_back()
    else:
        store.publish(MAPS[step % len(MAPS)])


def test_through_1000_swaps_every_map_read_is_whole_and_no_sequence_goes_back(open_store):
    store = open_store(keep_s=0.05)
    store.publish(MAPS[0])
    swaps = SWAPS if not is_local(store) else SWAPS // 40  # a disk is slow
    is_over = threading.Event()
    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(watch, open_store(), is_over) for _ in range(READERS)]
        try:
            for step in range(swaps):
                swap(store, step)
        finally:
            is_over.set()
    for reader in readers:
        sequences = [sequence for sequence, _ in reader.result()]
        assert sequences == sorted(sequences)
        assert len({version for _, version in reader.result()}) > 1


def test_of_many_that_publish_at_once_each_moves_the_pointer_on(open_store):
    racers = 6

    def publish(number):
        store = open_store()
        return [store.publish(MAPS[(number + step) % 5]).sequence for step in range(10)]

    with ThreadPoolExecutor(racers) as pool:
        sequences = [one for got in pool.map(publish, range(racers)) for one in got]
    assert len(set(sequences)) == racers * 10
    assert open_store().pointer().sequence == max(sequences)


def test_no_publish_that_races_with_a_pin_undoes_it(open_store):
    store = open_store()
    for one in MAPS:
        store.publish(one)
    is_over = threading.Event()

    def publish(number):
        mine, step = open_store(), 0
        while not is_over.is_set():
            mine.publish(MAPS[(number + step) % 5])
            step += 1

    with ThreadPoolExecutor(3) as pool:
        racers = [pool.submit(publish, number) for number in range(3)]
        try:
            for one in MAPS * 4:
                assert store.pin(one.version).version == one.version
                for _ in range(3):
                    pointer = store.pointer()
                    assert (pointer.version, pointer.pinned) == (one.version, True)
                store.unpin()
        finally:
            is_over.set()
    for racer in racers:
        racer.result()


RACER = """
import sys
from pathlib import Path

from index.cluster_map_registry import open_cluster_maps
from tests.support.cluster_maps import numbered

url, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
store = open_cluster_maps(url, folder)
for step in range(20):
    print(store.publish(numbered((number + step) % 5)).sequence)
"""


@pytest.mark.parametrize("kind", ["folder", "redis"])
def test_processes_that_publish_at_once_do_not_undo_each_other(kind, redis, tmp_path):
    url = redis.url if kind == "redis" else ""
    command = [sys.executable, "-c", RACER, url, str(tmp_path)]
    racers = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, cwd=ROOT)
        for number in range(3)
    ]
    told = [racer.communicate(timeout=120)[0].decode().split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    sequences = [int(sequence) for mine in told for sequence in mine]
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
    """What a call did: the pointer without its sequence, what is stored, or the error."""
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
    told = (pointer.version, pointer.previous, pointer.pinned) if pointer else None
    return told, versions_of(store), [one.expires_in_s is None for one in store.listed()]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(calls=st.lists(CALLS, max_size=12))
def test_whatever_is_called_folder_and_redis_do_the_same(calls, redis, tmp_path):
    folder = emptied(local_maps(tmp_path / "clusters"))
    in_redis = emptied(redis_maps(redis.url))
    sequence = 0
    for call, argument in calls:
        assert outcome(folder, call, argument) == outcome(in_redis, call, argument)
        pointer = in_redis.pointer()
        assert pointer is None or pointer.sequence >= sequence
        sequence = pointer.sequence if pointer else sequence
