"""Training with --follow: maps sampled from at each step."""

from datetime import UTC, datetime

import numpy as np
import pytest
from scipy.stats import chisquare

from index.cluster_map_stores import open_cluster_maps
from tests.support.redis_server import wait_until
from tests.support.trainer_maps import (
    esans_config,
    follow,
    map_of,
    publishing,
    swapped_versions,
    unrelated_map,
    wait_for_arrival,
)
from trainer.esans.build_map import build_cluster_map


@pytest.fixture(params=["folder", "redis"])
def store(request, tmp_path):
    url = request.getfixturevalue("redis").url if request.param == "redis" else None
    return open_cluster_maps(url, tmp_path / "clusters")


def p_value(clusters, recorder, steps):
    """p-value of the negatives of some steps, if sampled with the map `clusters`."""
    items = np.arange(len(clusters), dtype=np.int32)
    observed, expected = np.zeros(len(items)), np.zeros(len(items))
    for positives, rows in recorder.sampled[steps]:
        observed += np.bincount(rows.reshape(-1), minlength=len(items))
        chances = clusters.hard_probability(positives.astype(np.int32), items)
        expected += rows.shape[1] * chances.sum(axis=0)
    return chisquare(observed, expected).pvalue


def test_follow_samples_from_current_map_at_each_step(world_data, tmp_path, store):
    old, new = map_of(world_data, 1), map_of(world_data, 2)
    store.publish(old)
    trained, recorder = follow(world_data, store, tmp_path, {13: publishing(store, new)})
    assert recorder.versions == [old.version] * 14 + [new.version] * 13
    before, after = slice(0, 14), slice(14, 27)
    assert p_value(old, recorder, before) > 0.001 > p_value(new, recorder, before)
    assert p_value(new, recorder, after) > 0.001 > p_value(old, recorder, after)
    assert swapped_versions(trained) == [(0, old.version), (14, new.version)]
    assert [swap["source"] for swap in trained.progress.cluster_maps] == [store.location] * 2
    sequences = [swap["sequence"] for swap in trained.progress.cluster_maps]
    assert sequences == sorted(sequences)
    assert store.pointer().sequence == sequences[-1]


def test_follow_joins_map_of_smaller_catalogue_by_item(world_data, tmp_path, store):
    full = map_of(world_data, 1)
    order = np.random.default_rng(0).permutation(len(full))[:-4]  # a map without 4 new items
    parts = {name: getattr(full, name)[order] for name in ("codes1", "codes2", "id_hashes")}
    older = type(full)(**parts, centroids=full.centroids)
    store.publish(older)
    trained, recorder = follow(world_data, store, tmp_path)
    (swap,) = trained.progress.cluster_maps
    assert (swap["published_version"], swap["items"]) == (older.version, 160)
    assert swap["made"]["unknown_items"] == 4
    assert recorder.sampler.clusters.version == swap["version"] != older.version


@pytest.mark.parametrize(
    "published", [None, unrelated_map()], ids=["no map", "an incompatible map"]
)
def test_follow_without_compatible_map_starts_with_own(
    world_data, tmp_path, store, published, capsys
):
    if published:
        store.publish(published)
    compatible = map_of(world_data, 1)
    trained, _ = follow(world_data, store, tmp_path, {5: publishing(store, compatible)})
    own = build_cluster_map(world_data, esans_config().clusters, 0, datetime.now(UTC))
    assert swapped_versions(trained) == [(0, own.version), (6, compatible.version)]
    assert trained.progress.cluster_maps[0]["sequence"] is None
    output = capsys.readouterr().out
    assert "the run begins with its own map" in output
    assert ("nothing is published" if published is None else "shares 0 items") in output


def test_follow_rejects_incompatible_map_and_keeps_current(world_data, tmp_path, store, caplog):
    good, better = map_of(world_data, 1), map_of(world_data, 2)
    store.publish(good)

    def publish_incompatible(_):
        store.publish(unrelated_map())
        wait_until(lambda: "shares 0 items" in caplog.text)

    actions = {3: publish_incompatible, 9: publishing(store, better)}
    trained, _ = follow(world_data, store, tmp_path, actions)
    assert swapped_versions(trained) == [(0, good.version), (10, better.version)]
    assert caplog.text.count("shares 0 items") == 1


def test_resumed_run_records_all_its_maps(world_data, tmp_path, store):
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
    trained, recorder = follow(
        world_data, store, tmp_path, {8: lambda sampler: wait_for_arrival(sampler, third)}
    )
    assert swapped_versions(trained) == [
        (0, first.version),
        (6, second.version),
        (8, third.version),
    ]
    assert recorder.versions[0] == third.version


def test_follow_is_deterministic_for_same_swap_steps(world_data, tmp_path, store):
    first, second = map_of(world_data, 1), map_of(world_data, 2)
    weights = []
    for name in ("first", "second"):
        store.publish(first)
        (tmp_path / name).mkdir()
        trained, _ = follow(world_data, store, tmp_path / name, {7: publishing(store, second)})
        weights.append(trained.towers.state_dict())
    assert all((weight == weights[1][name]).all() for name, weight in weights[0].items())
