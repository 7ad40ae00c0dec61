"""Training with --follow continues with the last valid map through Redis failures."""

from contextlib import suppress
from threading import Thread, current_thread, main_thread

import numpy as np
import pytest
from redis import Redis

from index.cluster_map import ClusterMap
from index.cluster_map_registry import ClusterMapRegistry
from index.cluster_map_stores import local_map_blobs, open_cluster_maps
from index.errors import StoreFullError, StoreUnreachableError
from tests.support.redis_server import wait_until
from tests.support.trainer_maps import follow, map_of, publishing, swapped_versions

BROKEN_AT, REPAIRED_AT = 3, 9


@pytest.fixture
def store(redis, tmp_path):
    return open_cluster_maps(redis.url, tmp_path / "unused")


def change_password(redis, old, new):
    """Change the password and disconnect all clients."""
    client = Redis(unix_socket_path=str(redis.socket), password=old)
    client.config_set("requirepass", new)
    client.client_kill_filter(_type="normal", skipme=True)
    client.close()


FAILURES = {  # name -> failure, log message, repair
    "killed, restarted empty": (lambda redis: redis.kill(), "expected a response", "start"),
    "frozen": (lambda redis: redis.freeze(), "expected a response within 0.5 s", "thaw"),
    "password changed": (
        lambda redis: change_password(redis, None, "new"),
        "expected access",
        lambda redis: change_password(redis, "new", ""),
    ),
    "flushed": (lambda redis: redis.client.flushall(), "restored to", lambda _: None),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_follow_survives_redis_failure_and_swaps_later(
    world_data, tmp_path, redis, store, caplog, failure
):
    good, better = map_of(world_data, 1), map_of(world_data, 2)
    fail, message, repair = FAILURES[failure]
    store.publish(good)

    def break_redis(_):
        fail(redis)
        wait_until(lambda: message in caplog.text)

    def recover(sampler):
        getattr(redis, repair)() if isinstance(repair, str) else repair(redis)
        publishing(store, better)(sampler)

    actions = {BROKEN_AT: break_redis, REPAIRED_AT: recover}
    trained, recorder = follow(world_data, store, tmp_path, actions)
    assert swapped_versions(trained) == [(0, good.version), (REPAIRED_AT + 1, better.version)]
    assert len(recorder.versions) == 27
    warnings = [line for line in caplog.text.splitlines() if message in line]
    is_killed = failure.startswith("killed")  # a poll may be reset, and the next ones refused
    assert 1 <= len(warnings) <= (2 if is_killed else 1)
    assert len(warnings) == len(set(warnings))


@pytest.mark.parametrize("failure", ["killed, restarted empty", "frozen"])
def test_follow_completes_while_redis_is_down(world_data, tmp_path, redis, store, caplog, failure):
    good = map_of(world_data, 1)
    store.publish(good)

    def break_redis(_):
        FAILURES[failure][0](redis)
        wait_until(lambda: "expected a response" in caplog.text)

    trained, recorder = follow(world_data, store, tmp_path, {BROKEN_AT: break_redis})
    assert swapped_versions(trained) == [(0, good.version)]
    assert recorder.sampler.clusters.version == good.version


def test_follow_rejects_corrupt_map_and_keeps_current(world_data, tmp_path, redis, store, caplog):
    good, corrupt, better = (map_of(world_data, seed) for seed in (1, 2, 3))
    store.publish(good)

    def make_corrupt_map_current(_):
        store.pin()
        store.publish(corrupt)
        redis.client.setrange(f"esans:clusters:{corrupt.version}:0", 0, b"spoilt")
        store.unpin()
        store.roll_back(corrupt.version)
        wait_until(lambda: f"cluster map {corrupt.version}" in caplog.text)

    actions = {BROKEN_AT: make_corrupt_map_current, REPAIRED_AT: publishing(store, better)}
    trained, _ = follow(world_data, store, tmp_path, actions)
    assert swapped_versions(trained) == [(0, good.version), (REPAIRED_AT + 1, better.version)]


def test_follow_survives_redis_out_of_memory(world_data, tmp_path, redis, store):
    good, better = map_of(world_data, 1), map_of(world_data, 2)
    store.publish(good)

    def fill_memory(_):
        redis.client.config_set("maxmemory", 1)
        with pytest.raises(StoreFullError):
            store.publish(better)

    def recover(sampler):
        redis.client.config_set("maxmemory", 0)
        publishing(store, better)(sampler)

    actions = {BROKEN_AT: fill_memory, REPAIRED_AT: recover}
    trained, _ = follow(world_data, store, tmp_path, actions)
    assert swapped_versions(trained) == [(0, good.version), (REPAIRED_AT + 1, better.version)]


def test_follow_survives_redis_killed_during_publish(world_data, tmp_path, redis, store, caplog):
    good, better = map_of(world_data, 1), map_of(world_data, 2)
    store.publish(good)
    store.pin()
    publisher = Thread(target=publish_until_it_fails, args=(redis.url, tmp_path))

    def kill(_):
        publisher.start()
        wait_until(lambda: redis.client.keys("*:staged:*"))
        redis.kill()
        publisher.join()
        wait_until(lambda: "expected a response" in caplog.text)

    def recover(sampler):
        redis.start()
        wait_until(lambda: "restored to" in caplog.text)
        store.unpin()
        publishing(store, better)(sampler)

    trained, _ = follow(world_data, store, tmp_path, {BROKEN_AT: kill, REPAIRED_AT: recover})
    assert swapped_versions(trained) == [(0, good.version), (REPAIRED_AT + 1, better.version)]


def publish_until_it_fails(url, folder):
    """Publish a map so large that most of the time an upload is in progress."""
    store = open_cluster_maps(url, folder)
    codes, hashes = np.zeros(1_000_000, np.int32), np.arange(1_000_000, dtype=np.uint64)
    large = ClusterMap(codes, codes, np.ones((1, 4), np.float32), hashes)
    with suppress(StoreUnreachableError):
        while True:
            store.publish(large)


def test_follow_does_not_wait_for_a_removed_map(world_data, tmp_path, capsys):
    store = FlushedAfterStart(local_map_blobs(tmp_path / "clusters"))
    store.publish(map_of(world_data, 1))
    trained, _ = follow(world_data, store, tmp_path)
    assert [swap["source"] for swap in trained.progress.cluster_maps] == ["made by this run"]
    assert "no cluster map is published" in capsys.readouterr().out


class FlushedAfterStart(ClusterMapRegistry):
    """Registry with a map for the main thread, and none for the watcher's thread."""

    def pointer(self):
        return super().pointer() if current_thread() is main_thread() else None


def test_follow_swaps_once_redis_becomes_reachable(world_data, tmp_path, redis, store, capsys):
    published = map_of(world_data, 1)
    redis.kill()

    def start(sampler):
        redis.start()
        publishing(store, published)(sampler)

    trained, _ = follow(world_data, store, tmp_path, {4: start})
    assert trained.progress.cluster_maps[0]["source"] == "made by this run"
    assert swapped_versions(trained)[1:] == [(5, published.version)]
    assert "the run begins with its own map" in capsys.readouterr().out


def test_resumed_run_without_redis_keeps_its_last_map(world_data, tmp_path, redis, store):
    published = map_of(world_data, 1)
    store.publish(published)

    def stop(_):
        redis.kill()
        raise InterruptedError

    with pytest.raises(InterruptedError):
        follow(world_data, store, tmp_path, {5: stop}, checkpoint_interval_s=0)
    trained, recorder = follow(world_data, store, tmp_path)
    assert swapped_versions(trained) == [(0, published.version)]
    assert set(recorder.versions) == {published.version}
