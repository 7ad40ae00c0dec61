"""Maps of thousands of clusters: the proposal is computed on first use, not as one large table."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from index.cluster_layout import EAGER_CLUSTERS
from index.cluster_map import MAX_LEVEL_1_CODES, ClusterMap

ROOT = Path(__file__).parents[2]
MAX_MB = 350  # a table of 8,000 x 8,192 float64 alone takes 524 MB
MEASURE_SWAP = """
from pathlib import Path
import numpy as np
from index.cluster_map_watcher import warm_up
from tests.index.test_many_clusters import numbered_centroids
maps = [numbered_centroids(8_000, seed) for seed in range(2)]
for cluster_map in maps:
    warm_up(cluster_map)
    cluster_map.sample_easy(np.arange(100, dtype=np.int32), 5, np.random.default_rng(0))
status = Path('/proc/self/status').read_text()  # ru_maxrss would count the parent of the process
print(int(status.split('VmHWM:')[1].split()[0]) // 1_000)
"""


def numbered_centroids(num_clusters, seed=0):
    """A map with one item per cluster, all in cell 0, and random centroids."""
    rows = np.arange(num_clusters)
    centroids = np.random.default_rng(seed).normal(size=(num_clusters, 4)).astype(np.float32)
    return ClusterMap(
        codes1=rows.astype(np.int32),
        codes2=np.zeros(num_clusters, dtype=np.int32),
        centroids=centroids,
        id_hashes=rows.astype(np.uint64),
    )


def expected_probabilities(cluster_map, positive):
    """P(k | positive) by definition; T is that of EAGER_CLUSTERS centroids."""
    points = cluster_map.centroids.astype(np.float64)
    chosen = points[np.linspace(0, len(points) - 1, EAGER_CLUSTERS).astype(int)]
    distances = np.sqrt(((chosen[:, None] - chosen) ** 2).sum(axis=2))
    median = np.median(distances[~np.eye(len(chosen), dtype=bool)])
    logits = -np.sqrt(((points - points[positive]) ** 2).sum(axis=1)) / (0.2 * median)
    logits[positive] = -np.inf
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def test_swap_of_8000_clusters_needs_little_memory():
    command = [sys.executable, "-c", MEASURE_SWAP]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < MAX_MB


def test_easy_probability_of_many_clusters_is_softmax():
    cluster_map = numbered_centroids(EAGER_CLUSTERS + 50)
    assert not cluster_map.is_warm
    rows = np.arange(len(cluster_map), dtype=np.int32)
    positives = np.array([7, 2_090, 7], dtype=np.int32)
    probabilities = cluster_map.easy_probability(positives, rows)
    for positive, row in zip(positives, probabilities, strict=True):
        assert np.allclose(row, expected_probabilities(cluster_map, positive), atol=1e-12)
    mean = cluster_map.mean_easy_probability(positives, rows)
    assert np.allclose(mean, probabilities.mean(axis=0), atol=1e-12)


def test_sample_easy_of_many_clusters_follows_probability():
    cluster_map = numbered_centroids(EAGER_CLUSTERS + 50)
    positives = np.array([3], dtype=np.int32)
    sampled = cluster_map.sample_easy(positives, 100_000, np.random.default_rng(0))[0]
    shares = np.bincount(sampled, minlength=len(cluster_map)) / len(sampled)
    expected = expected_probabilities(cluster_map, 3)
    assert shares[3] == 0
    assert np.abs(shares - expected).max() < 5 * np.sqrt(expected.max() / len(sampled))


def test_sampling_in_two_threads_equals_single_thread():
    shared, results = numbered_centroids(EAGER_CLUSTERS + 600), {}

    def sample(cluster_map, seed):
        rng = np.random.default_rng(seed)
        positives = rng.integers(len(cluster_map), size=500).astype(np.int32)
        return cluster_map.sample_easy(positives, 3, rng)

    threads = [
        threading.Thread(target=lambda seed=seed: results.update({seed: sample(shared, seed)}))
        for seed in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, sampled in results.items():
        assert np.array_equal(sampled, sample(numbered_centroids(len(shared)), seed))


def test_map_of_too_many_clusters_is_rejected():
    with pytest.raises(ValueError, match="expected 8,193"):
        numbered_centroids(MAX_LEVEL_1_CODES + 1)
    assert len(numbered_centroids(MAX_LEVEL_1_CODES)) == MAX_LEVEL_1_CODES
