"""A small cluster map: clusters on a line, so that a reader can foresee the probabilities.

Cluster 0 is at 0, 1 at 1, 2 at 3. The median distance is 2 and T = 0.5 of it = 1, so from
cluster 0 the odds of clusters 1 and 2 are exp(-1) to exp(-3).
"""

import numpy as np
from scipy.stats import chisquare

from index.cluster_map import ClusterMap
from index.ids import hash_ids

CODES1 = [0, 0, 0, 0, 1, 1, 1, 2, 2, 0]
CODES2 = [0, 0, 1, 2, 0, 0, 1, 3, 3, 0]
CENTROIDS = [0, 1, 3]


def hash_names(names):
    return hash_ids([name.encode() for name in names])


def build_line_map(
    codes1=CODES1, codes2=CODES2, centroids=CENTROIDS, temperature_share=0.5, **options
):
    return ClusterMap(
        codes1=np.array(codes1, dtype=np.int32),
        codes2=np.array(codes2, dtype=np.int32),
        centroids=np.array(centroids, dtype=np.float32)[:, None],
        id_hashes=hash_names(f"item-{row}" for row in range(len(codes1))).copy(),
        temperature_share=temperature_share,
        **options,
    )


def build_random_map(seed=0):
    """300 items in 12 clusters of 4 codes, of uneven sizes, in a plane."""
    rng = np.random.default_rng(seed)
    return ClusterMap(
        codes1=np.sort(rng.integers(0, 12, 300) * rng.integers(0, 2, 300)).astype(np.int32),
        codes2=rng.integers(0, 4, 300).astype(np.int32),
        centroids=rng.normal(size=(12, 2)).astype(np.float32),
        id_hashes=rng.integers(0, 2**63, 300).astype(np.uint64),
    )


def rows(*values):
    return np.array(values, dtype=np.int32)


def all_rows(clusters):
    return np.arange(len(clusters), dtype=np.int32)


def assert_samples_match(samples, probabilities):
    """Chi-square test of samples against probabilities; none may have probability 0."""
    counts = np.bincount(samples.ravel(), minlength=len(probabilities))
    assert counts[probabilities == 0].sum() == 0
    if (probabilities > 0).sum() == 1:
        return
    expected = probabilities[probabilities > 0] * samples.size
    observed = counts[probabilities > 0]
    assert chisquare(observed, expected * (counts.sum() / expected.sum())).pvalue > 1e-3
