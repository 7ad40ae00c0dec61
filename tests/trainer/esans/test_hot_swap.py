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

SAMPLER = {"name": "esans", "easy": 0, "hard": 40, "virtual": False}
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


def published(clusters, sequence=1):
    return build_map_sampler(clusters, build, clusters.version, sequence, "a folder")


def own(clusters):
    return build_map_sampler(clusters, build)


def hard_counts(sampler, steps):
    """How often each item was drawn as a hard negative of item 0."""
    counts = np.zeros(12)
    for step in steps:
        drawn = sampler(context_for([[0], [1]], [0, 1], [0, 1], SHARE, step=step))
        counts += np.bincount(next(drawn.sets()).rows[0], minlength=12)
    return counts


def assert_drawn_from(clusters, counts):
    zero, all_rows = np.zeros(1, np.int32), np.arange(12, dtype=np.int32)
    expected = clusters.hard_chance(zero, all_rows)[0] * counts.sum()
    assert counts[expected == 0].sum() == 0
    assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.001


def test_what_arrives_is_drawn_from_after_the_swap_and_not_before():
    sampler = HotSwapSampler(build, own(HALVES))
    sampler.swap(0)
    assert_drawn_from(HALVES, hard_counts(sampler, range(100)))
    sampler.received_map = published(PARITIES)
    assert_drawn_from(HALVES, hard_counts(sampler, range(100, 200)))
    told = sampler.swap(200)
    assert_drawn_from(PARITIES, hard_counts(sampler, range(200, 300)))
    assert (told["from_step"], told["version"]) == (200, PARITIES.version)


def test_nothing_is_told_where_nothing_new_arrived():
    sampler = HotSwapSampler(build)
    sampler.received_map = published(HALVES)
    assert sampler.swap(0)["sequence"] == 1
    assert sampler.swap(1) is None
    sampler.received_map = published(HALVES, sequence=2)  # published once more, or rolled back to
    assert sampler.swap(2) is None


def test_the_runs_own_map_is_told_as_such():
    sampler = HotSwapSampler(build, own(HALVES))
    told = sampler.swap(0)
    assert (told["sequence"], told["source"]) == (None, "made by this run")
    assert sampler.is_own_map
    sampler.received_map = published(PARITIES)
    sampler.swap(1)
    assert not sampler.is_own_map


def test_a_sampler_that_goes_on_draws_from_the_map_it_was_stopped_with():
    stopped = HotSwapSampler(build)
    stopped.received_map = published(dataclasses.replace(HALVES, made={"at": "noon"}), sequence=7)
    stopped.swap(0)
    again = HotSwapSampler(build, own(PARITIES))
    again.load_state_dict(stopped.state_dict())
    assert again.swap(10) is None
    assert again.clusters.version == HALVES.version
    assert again.clusters.made == {"at": "noon"}
    assert (hard_counts(again, range(9)) == hard_counts(stopped, range(9))).all()


def test_a_sampler_that_goes_on_swaps_to_what_arrived_meanwhile():
    stopped = HotSwapSampler(build, own(HALVES))
    stopped.swap(0)
    again = HotSwapSampler(build)
    again.received_map = published(PARITIES)
    again.load_state_dict(stopped.state_dict())
    assert again.swap(10)["version"] == PARITIES.version


def test_a_sampler_without_any_map_is_a_mistake_that_is_told():
    with pytest.raises(ValueError, match="no map is in use"):
        hard_counts(HotSwapSampler(build), [0])


class Scripted(HotSwapSampler):
    """Swaps maps over 40 items at the steps that a test names."""

    def __init__(self, maps):
        super().__init__(build)
        self.maps, self.steps_seen = maps, []

    def swap(self, step):
        self.received_map = published(self.maps[step]) if step in self.maps else self.received_map
        return super().swap(step)

    def __call__(self, context):
        self.steps_seen.append((context.step, self.clusters.version))
        return super().__call__(context)


def map_of_40(seed):
    rng = np.random.default_rng(seed)
    return ClusterMap(
        rng.integers(0, 2, 40).astype(np.int32),
        rng.integers(0, 3, 40).astype(np.int32),
        np.eye(2, dtype=np.float32),
        np.arange(40, dtype=np.uint64),
    )


def test_the_loop_swaps_between_two_steps_and_keeps_the_lineage(tmp_path, capsys):
    first, second = map_of_40(0), map_of_40(1)
    sampler = Scripted({0: first, 3: second})
    assert isinstance(sampler, SwappableSampler)
    assert isinstance(sampler, StatefulSampler)
    done = train_tiny(tmp_path, sampler, config_of(SAMPLER, epochs=1))
    drawn_from = [first.version] * 3 + [second.version] * (done.progress.step - 3)
    assert sampler.steps_seen == list(enumerate(drawn_from))
    assert [(one["from_step"], one["version"]) for one in done.progress.cluster_maps] == [
        (0, first.version),
        (3, second.version),
    ]
    told = f"step 3: negatives come from cluster map {second.version} (a folder)"
    assert told in capsys.readouterr().out


def test_a_run_that_goes_on_keeps_the_lineage_of_the_one_that_was_stopped(tmp_path):
    first, second, third = map_of_40(0), map_of_40(1), map_of_40(2)

    class Stops(Scripted):
        def __call__(self, context):
            if context.step == 5:
                raise InterruptedError
            return super().__call__(context)

    config = config_of(SAMPLER, epochs=1, checkpoint_interval_s=0)
    with pytest.raises(InterruptedError):
        train_tiny(tmp_path, Stops({0: first, 3: second}), config)
    again = Scripted({6: third})
    done = train_tiny(tmp_path, again, config)
    assert again.steps_seen[0] == (5, second.version)
    assert [(one["from_step"], one["version"]) for one in done.progress.cluster_maps] == [
        (0, first.version),
        (3, second.version),
        (6, third.version),
    ]


def test_swaps_at_the_same_steps_train_the_same_weights(tmp_path):
    config = config_of(SAMPLER, epochs=1)
    weights = []
    for name in ("one", "two"):
        sampler = Scripted({0: map_of_40(0), 4: map_of_40(1)})
        weights.append(train_tiny(tmp_path / name, sampler, config).towers.state_dict())
    assert all(torch.equal(one, weights[1][name]) for name, one in weights[0].items())
