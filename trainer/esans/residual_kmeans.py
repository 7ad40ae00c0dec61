"""Residual k-means over aligned items: the cascaded codebooks of MSAC. Imports FAISS."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from index.ann.index import all_cores
from index.arrays import Floats
from index.cluster_layout import Codes
from index.ids import hash_ids
from trainer.config import ClustersConfig
from trainer.esans.alignment import AlignedItems
from trainer.progress import progress_bar

NUM_ITERATIONS = 20  # of k-means
CELL_ITEMS = 12  # items of a cell, which are masked: few, in a catalogue of any size
POINTS_PER_CENTROID = 256
MIN_SAMPLE_SIZE = 262_144  # 16 centroids at 256 points each would see only 4,096 items
CHUNK = 65_536  # items assigned at once

ReadRows = Callable[[NDArray[np.int64]], Floats]  # features [n, dim] of n items


@dataclass(frozen=True)
class Codebooks:
    """Codes of both levels and the codebook of level 1.

    Attributes:
        codes1: [num_items], c1(i), the cluster; every code is used.
        codes2: [num_items], c2(i), the code within the cluster; every code is used.
        centroids: [K1, dim], C_k of level 1.
    """

    codes1: Codes
    codes2: Codes
    centroids: Floats


def fit_codebooks(aligned: AlignedItems, config: ClustersConfig, seed: int) -> Codebooks:
    """Assign clusters and codes with two cascaded k-means.

    Level 1: k-means(zbar, K1) over the mean embedding of each item gives c1(i) and C_k.
    Level 2: k-means(r, K2) over the residuals r_i = concat over m of (z_i^m - C_c1(i)) gives
    c2(i), with one codebook for all clusters. Items without any modality form one cluster at
    the origin (ours).

    Source: ESANS (Xing et al., WWW 2025), MSAC, cascaded codebooks.
    """
    num_items = len(aligned.presence)
    has_content = aligned.presence.any(axis=1)
    items = np.flatnonzero(has_content)
    codes1 = np.zeros(num_items, dtype=np.int32)
    codes2 = np.zeros(num_items, dtype=np.int32)
    dim = next(iter(aligned.embeddings.values())).shape[1]
    if not len(items):
        return Codebooks(codes1, codes2, np.zeros((1, dim), dtype=np.float32))
    num_clusters = config.level_1_codes or default_num_clusters(num_items)
    codes1[items], centroids = _fit_level(items, aligned.means, num_clusters, seed, "level 1")
    if len(items) < num_items:
        codes1[~has_content] = len(centroids)
        centroids = np.concatenate([centroids, np.zeros((1, dim), dtype=np.float32)])

    def residuals(rows: NDArray[np.int64]) -> Floats:
        return aligned.residuals(rows, centroids[codes1[rows]])

    num_codes = config.level_2_codes or default_num_codes(num_items, num_clusters)
    codes2[items], _ = _fit_level(items, residuals, num_codes, seed + 1, "level 2")
    return Codebooks(codes1, codes2, centroids)


def default_num_clusters(num_items: int) -> int:
    """Return K1 for a catalogue: round(sqrt(num_items)) within 8..4096 (ours)."""
    return int(np.clip(round(np.sqrt(num_items)), 8, 4_096))


def default_num_codes(num_items: int, num_clusters: int) -> int:
    """Return K2 for a catalogue: cells of CELL_ITEMS on average, within 2..4096 (ours)."""
    return int(np.clip(round(num_items / (CELL_ITEMS * num_clusters)), 2, 4_096))


def _fit_level(
    items: NDArray[np.int64], read: ReadRows, num_codes: int, seed: int, name: str
) -> tuple[Codes, Floats]:
    """Train k-means on a sample, assign all items in chunks, and drop unused codes.

    Returns:
        Codes [n] within 0..used - 1, and centroids [used, dim].
    """
    sample_size = max(MIN_SAMPLE_SIZE, POINTS_PER_CENTROID * num_codes)
    rng = np.random.default_rng([seed, 3])
    sample = items
    if len(items) > sample_size:
        sample = np.sort(rng.choice(items, sample_size, replace=False))
    message = f"{name}: k-means on {len(sample):,} items"
    tqdm.write(message, file=sys.stderr)  # tens of seconds for a million items
    centroids = train_centroids(read(sample), num_codes, seed)
    codes = np.concatenate(
        [_nearest(read(chunk), centroids) for chunk in _chunks(items, f"{name} codes")]
    )
    used, codes = np.unique(codes, return_inverse=True)
    return codes.astype(np.int32), centroids[used]


@all_cores()
def train_centroids(points: Floats, num_centroids: int, seed: int) -> Floats:
    """Run k-means with at most as many centroids as distinct points; [centroids, dim]."""
    num_distinct = len(np.unique(hash_ids(point.tobytes() for point in points)))
    kmeans = faiss.Kmeans(
        points.shape[1],
        min(num_centroids, num_distinct),
        niter=NUM_ITERATIONS,
        seed=seed,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,  # others merge groups
        min_points_per_centroid=1,  # silences the warning below 39 points
        max_points_per_centroid=len(points),  # the caller has sampled already
    )
    kmeans.train(points)
    return np.asarray(kmeans.centroids, dtype=np.float32)


@all_cores()
def _nearest(points: Floats, centroids: Floats) -> NDArray[np.int64]:
    """Return the nearest centroid of each point; [n]."""
    _, codes = faiss.knn(points, centroids, 1)
    return np.asarray(codes[:, 0], dtype=np.int64)


def _chunks(items: NDArray[np.int64], description: str) -> Iterator[NDArray[np.int64]]:
    """Yield chunks of items, with a progress bar."""
    with progress_bar(total=len(items), desc=description, unit=" items", unit_scale=True) as bar:
        for start in range(0, len(items), CHUNK):
            yield items[start : start + CHUNK]
            bar.update(min(CHUNK, len(items) - start))
