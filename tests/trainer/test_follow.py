"""Runs that follow a store's map, watched step by step."""

from datetime import UTC, datetime

import numpy as np
import pytest
from scipy.stats import chisquare

from index.cluster_map_registry import open_cluster_maps
from tests.support.redis_server import wait_until
from tests.support.trainer_maps import (
    config_of,
    follow,
    lineage_of,
    map_of,
    map_of_strangers,
    publishing,
    wait_for_arrival,
)
from trainer.esans.build_map import build_cluster_map


@pytest.fixture(params=["folder", "redis"])
def store(request, tmp_path):
    url = request.getfixturevalue("redis").url if request.param == "redis" else None
    return open_cluster_maps(url, tmp_path / "clusters")


def chance_of(clusters, watched, steps):
    """The p-value of what was drawn in some steps, if it was drawn from a map."""
    every = np.arange(len(clusters), dtype=np.int32)
    observed, expected = np.zeros(len(every)), np.zeros(len(every))
    for positives, rows in watched.drawn[steps]:
        observed += np.bincount(rows.reshape(-1), minlength=len(every))
        chances = clusters.hard_chance(positives.astype(np.int32), every)
        expected += rows.shape[1] * chances.sum(axis=0)
    return chisquare(observed, expected).pvalue


def test_each_step_draws_from_the_map_that_was_current_before_it(world_data, tmp_path, store):
    old, new = map_of(world_data, 1), map_of(world_data, 2)
    store.publish(old)
    trained, watched = follow(world_data, store, tmp_path, {13: publishing(store, new)})
    assert watched.versions == [old.version] * 14 + [new.version] * 13
    before, after = slice(0, 14), slice(14, 27)
    assert chance_of(old, watched, before) > 0.001 > chance_of(new, watched, before)
    assert chance_of(new, watched, after) > 0.001 > chance_of(old, watched, after)
    assert lineage_of(trained) == [(0, old.version), (14, new.version)]
    assert [one["source"] for one in trained.progress.cluster_maps] == [store.place] * 2
    sequences = [one["sequence"] for one in trained.progress.cluster_maps]
    assert sequences == sorted(sequences)
    assert store.pointer().sequence == sequences[-1]


def test_a_map_of_a_grown_catalogue_is_joined_by_item(world_data, tmp_path, store):
    whole = map_of(world_data, 1)
    order = np.random.default_rng(0).permutation(len(whole))[:-4]  # as of before 4 items came
    parts = {name: getattr(whole, name)[order] for name in ("codes1", "codes2", "id_hashes")}
    older = type(whole)(**parts, centroids=whole.centroids)
    store.publish(older)
    trained, watched = follow(world_data, store, tmp_path)
    (told,) = trained.progress.cluster_maps
    assert (told["published_version"], told["items"]) == (older.version, 160)
    assert told["made"]["unknown_items"] == 4
    assert watched.sampler.clusters.version == told["version"] != older.version


@pytest.mark.parametrize("found", [None, map_of_strangers()], ids=["no map", "a foreign map"])
def test_a_run_begins_with_its_own_map_where_the_stores_does_not_fit(
    world_data, tmp_path, store, found, capsys
):
    if found:
        store.publish(found)
    fitting = map_of(world_data, 1)
    trained, _ = follow(world_data, store, tmp_path, {5: publishing(store, fitting)})
    made = build_cluster_map(world_data, config_of().clusters, 0, datetime.now(UTC))
    assert lineage_of(trained) == [(0, made.version), (6, fitting.version)]
    assert trained.progress.cluster_maps[0]["sequence"] is None
    told = capsys.readouterr().out
    assert "the run begins with its own map" in told
    assert ("nothing is published" if found is None else "shares 0 items") in told


def test_a_foreign_map_in_mid_run_is_refused_once_and_the_old_one_drawn_from(
    world_data, tmp_path, store, caplog
):
    good, better = map_of(world_data, 1), map_of(world_data, 2)
    store.publish(good)

    def publish_a_foreign_one(_):
        store.publish(map_of_strangers())
        wait_until(lambda: "shares 0 items with the 160 known here" in caplog.text)

    actions = {3: publish_a_foreign_one, 9: publishing(store, better)}
    trained, _ = follow(world_data, store, tmp_path, actions)
    assert lineage_of(trained) == [(0, good.version), (10, better.version)]
    assert caplog.text.count("shares 0 items") == 1


def test_a_run_that_goes_on_tells_all_its_maps(world_data, tmp_path, store):
    first, second, third = (map_of(world_data, seed) for seed in (1, 2, 3))
    store.publish(first)

    def stop(_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        follow(
            world_data,
            store,
            tmp_path,
            {5: publishing(store, second), 8: stop},
            checkpoint_interval_s=0,
        )
    store.publish(third)
    trained, watched = follow(
        world_data, store, tmp_path, {8: lambda one: wait_for_arrival(one, third)}
    )
    assert lineage_of(trained) == [(0, first.version), (6, second.version), (8, third.version)]
    assert watched.versions[0] == third.version


def test_swaps_at_the_same_steps_leave_the_same_weights(world_data, tmp_path, store):
    first, second = map_of(world_data, 1), map_of(world_data, 2)
    weights = []
    for name in ("one", "two"):
        store.publish(first)
        (tmp_path / name).mkdir()
        trained, _ = follow(world_data, store, tmp_path / name, {7: publishing(store, second)})
        weights.append(trained.towers.state_dict())
    assert all((one == weights[1][name]).all() for name, one in weights[0].items())
