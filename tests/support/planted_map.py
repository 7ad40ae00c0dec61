"""Planted items: every modality encodes the group of an item, and nothing else."""

import numpy as np

from trainer.config import ClustersConfig

QUICK = ClustersConfig(embedding_dim=16, alignment_epochs=20, alignment_batch=16)


def groups_of(count, groups=2):
    """Assign items to groups round-robin."""
    return np.arange(count) % groups


def grouped_rows(groups, width, seed, spread=0.3, shift=0.0):
    """[items, width] float32: one direction per group, noise, and a common shift."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(groups.max() + 1, width))
    return (
        shift + directions[groups] + rng.normal(scale=spread, size=(len(groups), width))
    ).astype(np.float32)


def is_divided(codes, groups):
    """Whether no code has items of two groups."""
    return all(len(set(groups[codes == code])) == 1 for code in set(codes.tolist()))
