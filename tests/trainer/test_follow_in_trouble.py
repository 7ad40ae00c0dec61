"""Whatever becomes of Redis, a run that follows goes on with the last good map."""

from contextlib import suppress
from threading import Thread, current_thread, main_thread

import numpy as np
import pytest
from redis import Redis

from index.cluster_map import ClusterMap
from index.cluster_map_registry import (
    ClusterMapRegistry,
    local_map_blobs,
    open_cluster_maps,
)
from index.errors import StoreFullError, StoreUnreachableError
from tests.support.redis_server import wait_until
from tests.support.trainer_maps import follow, lineage_of, map_of, publishing

BROKEN_AT, REPAIRED_AT = 3, 9


@pytest.fixture
def store(redis, tmp_path):
    return open_cluster_maps(redis.url, tmp_path / "unused")


def change_password(redis, old, new):
    """Ask for another password, of those who are connected too."""
    client = Redis(unix_socket_path=str(redis.socket), password=old)
    client.config_set("requirepass", new)
    client.client_kill_filter(_type="normal", skipme=True)
    client.close()


TROUBLES = {
    "killed, restarted empty": (lambda one: one.kill(), "expected an answer", "start"),
    "frozen": (lambda one: one.freeze(), "expected an answer within 0.5 s", "thaw"),
    "refusing the password": (
        lambda one: change_password(one, None, "new"),
        "expected to be let in",
        lambda one: change_password(one, "new", ""),
    ),
    "flushed": (lambda one: one.client.flushall(), "put back into", lambda _: None),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_training_goes_on_through_trouble_and_swaps_after_it(
    world_data, tmp_path, redis, store, caplog, trouble
):
    good, better = map_of(world_data, 1), map_of(world_data, 2)
    cause, told, repair = TROUBLES[trouble]
    store.publish(good)

    def suffer(_):
        cause(redis)
        wait_until(lambda: told in caplog.text)

    def recover(sampler):
        getattr(redis, repair)() if isinstance(repair, str) else repair(redis)
        publishing(store, better)(sampler)

    actions = {BROKEN_AT: suffer, REPAIRED_AT: recover}
    trained, watched = follow(world_data, store, tmp_path, actions)
    assert lineage_of(trained) == [(0, good.version), (REPAIRED_AT + 1, better.version)]
    assert len(watched.versions) == 27
    assert caplog.text.count(told) == 1


@pytest.mark.parametrize("trouble", ["killed, restarted empty", "frozen"])
def test_a_run_ends_well_while_the_trouble_lasts(
    world_data, tmp_path, redis, store, caplog, trouble
):
    good = map_of(world_data, 1)
    store.publish(good)

    def suffer(_):
        TROUBLES[trouble][0](redis)
        wait_until(lambda: "expected an answer" in caplog.text)

    trained, watched = follow(world_data, store, tmp_path, {BROKEN_AT: suffer})
    assert lineage_of(trained) == [(0, good.version)]
    assert watched.sampler.clusters.version == good.version


def test_a_damaged_map_is_refused_and_the_good_one_drawn_from(
    world_data, tmp_path, redis, store, caplog
):
    good, damaged, better = (map_of(world_data, seed) for seed in (1, 2, 3))
    store.publish(good)

    def point_at_a_damaged_one(_):
        store.pin()
        store.publish(damaged)
        redis.client.setrange(f"esans:clusters:{damaged.version}:0", 0, b"spoilt")
        store.unpin()
        store.roll_back(damaged.version)
        wait_until(lambda: f"cluster map {damaged.version}" in caplog.text)

    actions = {BROKEN_AT: point_at_a_damaged_one, REPAIRED_AT: publishing(store, better)}
    trained, _ = follow(world_data, store, tmp_path, actions)
    assert lineage_of(trained) == [(0, good.version), (REPAIRED_AT + 1, better.version)]


def test_training_goes_on_while_redis_is_out_of_memory(world_data, tmp_path, redis, store):
    good, better = map_of(world_data, 1), map_of(world_data, 2)
    store.publish(good)

    def refuse(_):
        redis.client.config_set("maxmemory", 1)
        with pytest.raises(StoreFullError):
            store.publish(better)

    def recover(sampler):
        redis.client.config_set("maxmemory", 0)
        publishing(store, better)(sampler)

    actions = {BROKEN_AT: refuse, REPAIRED_AT: recover}
    trained, _ = follow(world_data, store, tmp_path, actions)
    assert lineage_of(trained) == [(0, good.version), (REPAIRED_AT + 1, better.version)]


def test_training_goes_on_while_redis_is_killed_in_mid_publish(
    world_data, tmp_path, redis, store, caplog
):
    good, better = map_of(world_data, 1), map_of(world_data, 2)
    store.publish(good)
    store.pin()
    publisher = Thread(target=publish_until_it_fails, args=(redis.url, tmp_path))

    def kill(_):
        publisher.start()
        wait_until(lambda: redis.client.keys("*:staged:*"))
        redis.kill()
        publisher.join()
        wait_until(lambda: "expected an answer" in caplog.text)

    def recover(sampler):
        redis.start()
        wait_until(lambda: "put back into" in caplog.text)
        store.unpin()
        publishing(store, better)(sampler)

    trained, _ = follow(world_data, store, tmp_path, {BROKEN_AT: kill, REPAIRED_AT: recover})
    assert lineage_of(trained) == [(0, good.version), (REPAIRED_AT + 1, better.version)]


def publish_until_it_fails(url, folder):
    """Publish a map so large that it is on its way most of the time."""
    store = open_cluster_maps(url, folder)
    codes, hashes = np.zeros(1_000_000, np.int32), np.arange(1_000_000, dtype=np.uint64)
    large = ClusterMap(codes, codes, np.ones((1, 4), np.float32), hashes)
    with suppress(StoreUnreachableError):
        while True:
            store.publish(large)


def test_a_map_that_is_gone_at_once_is_not_waited_for(world_data, tmp_path, capsys):
    store = Forgetful(local_map_blobs(tmp_path / "clusters"))
    store.publish(map_of(world_data, 1))
    trained, _ = follow(world_data, store, tmp_path)
    assert [one["source"] for one in trained.progress.cluster_maps] == ["made by this run"]
    assert "nothing is published" in capsys.readouterr().out


class Forgetful(ClusterMapRegistry):
    """Has a map for who asks first, the run; then it was flushed: none for the thread."""

    def pointer(self):
        return super().pointer() if current_thread() is main_thread() else None


def test_a_run_that_found_no_redis_takes_over_its_map_once_there_is_one(
    world_data, tmp_path, redis, store, capsys
):
    found = map_of(world_data, 1)
    redis.kill()

    def start(sampler):
        redis.start()
        publishing(store, found)(sampler)

    trained, _ = follow(world_data, store, tmp_path, {4: start})
    assert trained.progress.cluster_maps[0]["source"] == "made by this run"
    assert lineage_of(trained)[1:] == [(5, found.version)]
    assert "the run begins with its own map" in capsys.readouterr().out


def test_a_run_that_goes_on_without_redis_has_the_map_it_was_stopped_with(
    world_data, tmp_path, redis, store
):
    found = map_of(world_data, 1)
    store.publish(found)

    def stop(_):
        redis.kill()
        raise InterruptedError

    with pytest.raises(InterruptedError):
        follow(world_data, store, tmp_path, {5: stop}, checkpoint_interval_s=0)
    trained, watched = follow(world_data, store, tmp_path)
    assert lineage_of(trained) == [(0, found.version)]
    assert set(watched.versions) == {found.version}
