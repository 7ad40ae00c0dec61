import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from index.cluster_map import ClusterMap
from tests.support.sampler_contexts import config_of, context_for, train_tiny
from trainer.esans.hot_swap import HotSwapSampler, build_map_sampler
from trainer.esans.sampler import EsansSampler
from trainer.samplers.base import StatefulSampler, SwappableSampler

SAMPLER = {"name": "esans", "variant": "paper", "easy": 0, "hard": 40, "virtual": False}
CONFIG = config_of(SAMPLER)
HASHES = np.arange(12, dtype=np.uint64) + np.uint64(2**63)
SHARE = [1 / 12] * 12

# hard negatives of item 0: of halves 2..5, of parities 4, 6, 8 and 10
HALVES = ClusterMap(
    (np.arange(12) // 6).astype(np.int32),
    (np.arange(12) // 2 % 3).astype(np.int32),
    np.eye(2, dtype=np.float32),
    HASHES,
)
PARITIES = ClusterMap(
    (np.arange(12) % 2).astype(np.int32),
    (np.arange(12) // 4).astype(np.int32),
    np.eye(2, dtype=np.float32),
    HASHES,
)


def build(clusters):
    return EsansSampler(clusters, CONFIG.training.sampler)


def received(clusters, sequence=1):
    return build_map_sampler(clusters, build, clusters.version, sequence, "a folder")


def own_map(clusters):
    return build_map_sampler(clusters, build)


def hard_counts(sampler, steps):
    """How often each item was sampled as a hard negative of item 0."""
    counts = np.zeros(12)
    for step in steps:
        sampled = sampler(context_for([[0], [1]], [0, 1], [0, 1], SHARE, step=step))
        counts += np.bincount(next(sampled.sets()).rows[0], minlength=12)
    return counts


def assert_sampled_from(clusters, counts):
    zero, all_rows = np.zeros(1, np.int32), np.arange(12, dtype=np.int32)
    expected = clusters.hard_probability(zero, all_rows)[0] * counts.sum()
    assert counts[expected == 0].sum() == 0
    assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.001


def test_swap_activates_received_map():
    sampler = HotSwapSampler(build, own_map(HALVES))
    sampler.swap(0)
    assert_sampled_from(HALVES, hard_counts(sampler, range(100)))
    sampler.received_map = received(PARITIES)
    assert_sampled_from(HALVES, hard_counts(sampler, range(100, 200)))
    manifest_entry = sampler.swap(200)
    assert_sampled_from(PARITIES, hard_counts(sampler, range(200, 300)))
    assert (manifest_entry["from_step"], manifest_entry["version"]) == (200, PARITIES.version)


def test_swap_without_new_map_returns_none():
    sampler = HotSwapSampler(build)
    sampler.received_map = received(HALVES)
    assert sampler.swap(0)["sequence"] == 1
    assert sampler.swap(1) is None
    sampler.received_map = received(HALVES, sequence=2)  # published again, or rolled back to
    assert sampler.swap(2) is None


def test_swap_reports_own_map_without_sequence():
    sampler = HotSwapSampler(build, own_map(HALVES))
    manifest_entry = sampler.swap(0)
    assert (manifest_entry["sequence"], manifest_entry["source"]) == (None, "made by this run")
    assert sampler.is_own_map
    sampler.received_map = received(PARITIES)
    sampler.swap(1)
    assert not sampler.is_own_map


def test_load_state_dict_restores_active_map():
    stopped = HotSwapSampler(build)
    stopped.received_map = received(dataclasses.replace(HALVES, made={"at": "noon"}), sequence=7)
    stopped.swap(0)
    resumed = HotSwapSampler(build, own_map(PARITIES))
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.swap(10) is None
    assert resumed.clusters.version == HALVES.version
    assert resumed.clusters.made == {"at": "noon"}
    assert (hard_counts(resumed, range(9)) == hard_counts(stopped, range(9))).all()


def test_load_state_dict_then_swap_uses_received_map():
    stopped = HotSwapSampler(build, own_map(HALVES))
    stopped.swap(0)
    resumed = HotSwapSampler(build)
    resumed.received_map = received(PARITIES)
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.swap(10)["version"] == PARITIES.version


def test_sampler_without_map_raises():
    with pytest.raises(ValueError, match="no map is active"):
        hard_counts(HotSwapSampler(build), [0])


class Scripted(HotSwapSampler):
    """Swaps maps of 40 items at given steps."""

    def __init__(self, maps):
        super().__init__(build)
        self.maps, self.steps_seen = maps, []

    def swap(self, step):
        self.received_map = received(self.maps[step]) if step in self.maps else self.received_map
        return super().swap(step)

    def __call__(self, context):
        self.steps_seen.append((context.step, self.clusters.version))
        return super().__call__(context)


def random_map(seed):
    rng = np.random.default_rng(seed)
    return ClusterMap(
        rng.integers(0, 2, 40).astype(np.int32),
        rng.integers(0, 3, 40).astype(np.int32),
        np.eye(2, dtype=np.float32),
        np.arange(40, dtype=np.uint64),
    )


def test_train_swaps_between_steps_and_records_lineage(tmp_path, capsys):
    first, second = random_map(0), random_map(1)
    sampler = Scripted({0: first, 3: second})
    assert isinstance(sampler, SwappableSampler)
    assert isinstance(sampler, StatefulSampler)
    trained = train_tiny(tmp_path, sampler, config_of(SAMPLER, epochs=1))
    expected_versions = [first.version] * 3 + [second.version] * (trained.progress.step - 3)
    assert sampler.steps_seen == list(enumerate(expected_versions))
    assert [(entry["from_step"], entry["version"]) for entry in trained.progress.cluster_maps] == [
        (0, first.version),
        (3, second.version),
    ]
    manifest_entry = f"step 3: negatives come from cluster map {second.version} (a folder)"
    assert manifest_entry in capsys.readouterr().out


def test_train_resumed_keeps_lineage(tmp_path):
    first, second, third = random_map(0), random_map(1), random_map(2)

    class Stops(Scripted):
        def __call__(self, context):
            if context.step == 5:
                raise InterruptedError
            return super().__call__(context)

    config = config_of(SAMPLER, epochs=1, checkpoint_interval_s=0)
    with pytest.raises(InterruptedError):
        train_tiny(tmp_path, Stops({0: first, 3: second}), config)
    resumed = Scripted({6: third})
    trained = train_tiny(tmp_path, resumed, config)
    assert resumed.steps_seen[0] == (5, second.version)
    assert [(entry["from_step"], entry["version"]) for entry in trained.progress.cluster_maps] == [
        (0, first.version),
        (3, second.version),
        (6, third.version),
    ]


def test_train_same_swap_steps_same_weights(tmp_path):
    config = config_of(SAMPLER, epochs=1)
    weights = []
    for name in ("first", "second"):
        sampler = Scripted({0: random_map(0), 4: random_map(1)})
        weights.append(train_tiny(tmp_path / name, sampler, config).towers.state_dict())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
