"""What the tests of published maps share: a map of the planted world, quick settings."""

import numpy as np

from index.cluster_map import ClusterMap
from index.id_table import hashes_of

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
        hashes_of(one.encode() for one in data.item_ids),
        made={"seed": seed},
    )
