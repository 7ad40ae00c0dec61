"""Residual k-means over aligned items: the codes of the cluster map. Imports FAISS."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from index.arrays import Floats
from index.cluster_layout import Codes
from index.ids import hash_ids
from trainer.config import ClustersConfig
from trainer.esans.alignment import AlignedItems

ROUNDS = 20  # of k-means
POINTS_PER_CODE = 256
FEWEST_POINTS = 262_144  # 16 codes at 256 points each would see but 4,096 items
CHUNK = 65_536  # items assigned at once

ReadRows = Callable[[NDArray[np.int64]], Floats]  # rows of a stretch or a sample of items


@dataclass(frozen=True)
class Codebooks:
    """What both levels found.

    codes1, codes2  [items]      every code is used by an item
    centroids       [K1, width]  of level 1
    """

    codes1: Codes
    codes2: Codes
    centroids: Floats


def fit_codebooks(aligned: AlignedItems, config: ClustersConfig, seed: int) -> Codebooks:
    """Give every item its cluster, then within clusters a code, by two cascaded k-means.

    Level 1 sees the mean of an item's rows. Level 2 sees what that leaves of each row, one
    codebook for all clusters. Items that have no modality are a cluster of their own at the
    origin (ours). Source: the ESANS paper, MSAC.
    """
    count = len(aligned.presence)
    known = np.flatnonzero(aligned.presence.any(axis=1))
    codes1 = np.zeros(count, dtype=np.int32)
    codes2 = np.zeros(count, dtype=np.int32)
    width = next(iter(aligned.blocks.values())).shape[1]
    if not len(known):
        return Codebooks(codes1, codes2, np.zeros((1, width), dtype=np.float32))
    code_count = config.level_1_codes or automatic_count(count)
    codes1[known], centroids = _fit_level(known, aligned.means, code_count, seed, "level 1")
    if len(known) < count:
        codes1[~aligned.presence.any(axis=1)] = len(centroids)
        centroids = np.concatenate([centroids, np.zeros((1, width), dtype=np.float32)])

    def residuals(rows: NDArray[np.int64]) -> Floats:
        return aligned.residuals(rows, centroids[codes1[rows]])

    codes2[known], _ = _fit_level(known, residuals, config.level_2_codes, seed + 1, "level 2")
    return Codebooks(codes1, codes2, centroids)


def automatic_count(num_items: int) -> int:
    """Return K1 for a catalogue: round(sqrt(items)) within 8..4096 (ours)."""
    return int(np.clip(round(np.sqrt(num_items)), 8, 4_096))


def _fit_level(
    items: NDArray[np.int64], read: ReadRows, code_count: int, seed: int, name: str
) -> tuple[Codes, Floats]:
    """Train k-means on a sample, assign all in a stream; codes nobody uses are closed up.

    returns  codes [items], 0 .. used - 1; centroids [used, width]
    """
    points_limit = max(FEWEST_POINTS, POINTS_PER_CODE * code_count)
    rng = np.random.default_rng([seed, 3])
    sample = items
    if len(items) > points_limit:
        sample = np.sort(rng.choice(items, points_limit, replace=False))
    told = f"{name}: k-means on {len(sample):,} items"
    tqdm.write(told, file=sys.stderr)  # tens of seconds for a million items
    centroids = train_centroids(read(sample), code_count, seed)
    codes = np.concatenate(
        [_nearest(read(some), centroids) for some in _chunks(items, f"{name} codes")]
    )
    used, codes = np.unique(codes, return_inverse=True)
    return codes.astype(np.int32), centroids[used]


def train_centroids(points: Floats, code_count: int, seed: int) -> Floats:
    """Run k-means with no more codes than there are different points; [codes, width]."""
    different = len(np.unique(hash_ids(point.tobytes() for point in points)))
    kmeans = faiss.Kmeans(
        points.shape[1],
        min(code_count, different),
        niter=ROUNDS,
        seed=seed,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,  # others merge groups
        min_points_per_centroid=1,  # fewer than 39 each is no reason to warn
        max_points_per_centroid=len(points),  # the sample was drawn already
    )
    kmeans.train(points)
    return np.asarray(kmeans.centroids, dtype=np.float32)


def _nearest(points: Floats, centroids: Floats) -> NDArray[np.int64]:
    """Return the nearest centroid of each point; [points]."""
    _, codes = faiss.knn(points, centroids, 1)
    return np.asarray(codes[:, 0], dtype=np.int64)


def _chunks(items: NDArray[np.int64], told: str) -> Iterator[NDArray[np.int64]]:
    """Yield stretches of items, with a progress bar."""
    starts = range(0, len(items), CHUNK)
    with tqdm(total=len(items), desc=told, unit=" items", unit_scale=True) as bar:
        for start in starts:
            yield items[start : start + CHUNK]
            bar.update(min(CHUNK, len(items) - start))
