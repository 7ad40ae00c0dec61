"""Helpers for tests of followed cluster maps: maps of a dataset, and a recorded run."""

import numpy as np
import torch

from index.cluster_map import ClusterMap
from index.ids import hash_ids
from tests.support.redis_server import wait_until
from tests.support.training_data import tiny_config
from trainer.checkpoint import Checkpoint
from trainer.sampler_factory import open_sampler
from trainer.train_loop import train
from trainer.training_data import build_training_data

QUICK = {"clusters": {"alignment_epochs": 1}, "training": {"epochs": 1, "learning_rate": 0.01}}
SAMPLER = {"name": "esans", "variant": "paper", "easy": 0, "hard": 20, "virtual": False}


def map_of(data, seed, clusters=4):
    """A random map of a dataset's items, determined by the seed."""
    rng = np.random.default_rng(seed)
    count = len(data.item_ids)
    return ClusterMap(
        rng.integers(0, clusters, count).astype(np.int32),
        rng.integers(0, 3, count).astype(np.int32),
        rng.standard_normal((clusters, 4)).astype(np.float32),
        hash_ids(item_id.encode() for item_id in data.item_ids),
        made={"seed": seed},
    )


def unrelated_map(seed=0):
    """A map of items that are in no dataset of the tests."""
    rng = np.random.default_rng(seed)
    ids = (f"stranger-{row}".encode() for row in range(160))
    codes = rng.integers(0, 4, 160).astype(np.int32)
    return ClusterMap(codes, codes, np.eye(4, dtype=np.float32), hash_ids(ids))


class RecordingSampler:
    """A sampler that records the map version and the negatives of each step.

    Args:
        sampler: the recorded sampler.
        before: step -> action of the test after the swap and before sampling.
    """

    def __init__(self, sampler, before=None):
        self.sampler, self.before = sampler, before or {}
        self.versions, self.sampled = [], []

    def __call__(self, context):
        self.before.get(context.step, lambda _: None)(self.sampler)
        negatives = self.sampler(context)
        self.versions.append(self.sampler.clusters.version)
        rows = next(negatives.sets()).rows
        self.sampled.append((context.positive_rows.numpy(), rows.numpy()))
        return negatives

    def swap(self, step):
        return self.sampler.swap(step)

    def state_dict(self):
        return self.sampler.state_dict()

    def load_state_dict(self, state):
        self.sampler.load_state_dict(state)


def esans_config(**training):
    return tiny_config(**{"sampler": SAMPLER, "epochs": 1, "batch_size": 32} | training)


def follow(data, store, folder, before=None, **training):
    """Train an epoch of 27 steps with --follow; the trained towers and the recorded sampler."""
    torch.set_num_threads(1)
    config = esans_config(**training)
    checkpoint = Checkpoint(folder / "run.safetensors", "this run")
    with open_sampler(data, config, store, poll_s=0.05) as sampler:
        recorder = RecordingSampler(sampler, before)
        trained = train(build_training_data(data, config), recorder, config, checkpoint)
    return trained, recorder


def swapped_versions(trained):
    swaps = trained.progress.cluster_maps
    return [(swap["from_step"], swap["published_version"]) for swap in swaps]


def publishing(store, clusters):
    """An action before a step: publish a map and wait until the watcher has loaded it."""

    def act(sampler):
        store.publish(clusters)
        wait_for_arrival(sampler, clusters)

    return act


def wait_for_arrival(sampler, clusters):
    def has_arrived():
        arrived = sampler.received_map
        return arrived and arrived.description["published_version"] == clusters.version

    wait_until(has_arrived)
