"""What the tests of followed maps share: maps of the planted world, and a watched run."""

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
SAMPLER = {"name": "esans", "easy": 0, "hard": 20, "virtual": False}


def map_of(data, seed, clusters=4):
    """A map of a dataset's items by chance; another seed makes another."""
    rng = np.random.default_rng(seed)
    count = len(data.item_ids)
    return ClusterMap(
        rng.integers(0, clusters, count).astype(np.int32),
        rng.integers(0, 3, count).astype(np.int32),
        rng.standard_normal((clusters, 4)).astype(np.float32),
        hash_ids(one.encode() for one in data.item_ids),
        made={"seed": seed},
    )


def map_of_strangers(seed=0):
    """A map of items that no dataset here knows."""
    rng = np.random.default_rng(seed)
    ids = (f"stranger-{row}".encode() for row in range(160))
    codes = rng.integers(0, 4, 160).astype(np.int32)
    return ClusterMap(codes, codes, np.eye(4, dtype=np.float32), hash_ids(ids))


class Watched:
    """A followed sampler, watched: which map each step drew from, and how often which item.

    before  step -> what a test does before that step draws, and after it swapped
    """

    def __init__(self, sampler, before=None):
        self.sampler, self.before = sampler, before or {}
        self.versions, self.drawn = [], []

    def __call__(self, context):
        self.before.get(context.step, lambda _: None)(self.sampler)
        found = self.sampler(context)
        self.versions.append(self.sampler.clusters.version)
        rows = next(found.sets()).rows
        self.drawn.append((context.positive_rows.numpy(), rows.numpy()))
        return found

    def swap(self, step):
        return self.sampler.swap(step)

    def state_dict(self):
        return self.sampler.state_dict()

    def load_state_dict(self, state):
        self.sampler.load_state_dict(state)


def config_of(**training):
    return tiny_config(**{"sampler": SAMPLER, "epochs": 1, "batch_size": 32} | training)


def follow(data, store, folder, before=None, **training):
    """Train an epoch of 27 steps, following a store; what was trained, and the watched."""
    torch.set_num_threads(1)
    config = config_of(**training)
    checkpoint = Checkpoint(folder / "run.safetensors", "this run")
    with open_sampler(data, config, store, poll_s=0.05) as sampler:
        watched = Watched(sampler, before)
        trained = train(build_training_data(data, config), watched, config, checkpoint)
    return trained, watched


def lineage_of(trained):
    return [(one["from_step"], one["published_version"]) for one in trained.progress.cluster_maps]


def publishing(store, found):
    """An action before a step: publish, and wait until the thread has the map ready."""

    def act(sampler):
        store.publish(found)
        wait_for_arrival(sampler, found)

    return act


def wait_for_arrival(sampler, found):
    wait_until(
        lambda: (
            sampler.received_map
            and sampler.received_map.description["published_version"] == found.version
        )
    )
