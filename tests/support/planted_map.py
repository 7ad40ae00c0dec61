"""Items of planted groups: every modality tells the group, and there is no more to learn."""

import numpy as np

from trainer.config import ClustersConfig

QUICK = ClustersConfig(embedding_dim=16, alignment_epochs=20, alignment_batch=16)


def groups_of(count, groups=2):
    """Items take turns."""
    return np.arange(count) % groups


def grouped_rows(groups, width, seed, spread=0.3, shift=0.0):
    """[items, width] float32: an own direction for each group, noise, and a common shift."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups.max() + 1, width))
    return (shift + centres[groups] + rng.normal(scale=spread, size=(len(groups), width))).astype(
        np.float32
    )


def is_divided(codes, groups):
    """Whether no code holds items of two groups."""
    return all(len(set(groups[codes == code])) == 1 for code in set(codes.tolist()))
