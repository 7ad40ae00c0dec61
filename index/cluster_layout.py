"""Sampling tables derived from a cluster map: rows ordered by cell, and the cluster proposal.

They know codes and centroids, not positives or negatives.
"""

import threading
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.arrays import Floats, Rows

EAGER_CLUSTERS = 2_048  # the table of so many takes 32 MiB
BLOCK_CLUSTERS = 256  # computed at once beyond that

Codes = NDArray[np.int32]
Doubles = NDArray[np.float64]
Positions = NDArray[np.int64]


class Pools(NamedTuple):
    """Ranges of the row order to sample from, each with an excluded sub-range.

    All four arrays have the shape of the samples.
    """

    starts: Positions
    sizes: Positions
    excluded_starts: Positions
    excluded_sizes: Positions

    @property
    def counts(self) -> Positions:
        """Number of positions in each pool."""
        return self.sizes - self.excluded_sizes

    def positions(self, offsets: Positions) -> Positions:
        """Positions at `offsets` after each start, skipping the excluded sub-range."""
        positions = self.starts + offsets
        positions += self.excluded_sizes * (positions >= self.excluded_starts)
        return positions

    def fill_empty(self, fallback: "Pools") -> "Pools":
        """Replace empty pools by those of `fallback`."""
        is_empty = self.counts == 0
        if not is_empty.any():
            return self
        pairs = zip(self, fallback, strict=True)
        return Pools(*(np.where(is_empty, other, own) for own, other in pairs))


def sample_offsets(counts: Positions, rng: np.random.Generator) -> Positions:
    """Sample uniformly from 0 .. count - 1 for each count; shape of `counts`."""
    return (rng.random(counts.shape) * counts).astype(np.int64)  # random() < 1, so below count


@dataclass(frozen=True)
class Layout:
    """Rows ordered by cell, so that each cluster and each cell is a contiguous range.

    Attributes:
        order: [num_items], rows sorted by (c1, c2).
        cells: [num_items], c1 * K2 + c2 of each row.
        cluster_starts: [K1 + 1], start of each cluster in `order`.
        cell_starts: [K1 * K2 + 1], start of each cell in `order`.
    """

    order: Rows
    cells: Positions
    cluster_starts: Positions
    cell_starts: Positions

    @property
    def cluster_sizes(self) -> Positions:
        """Number of items in each cluster, [K1]."""
        return np.diff(self.cluster_starts)

    def all_items(self, shape: tuple[int, ...]) -> Pools:
        """Pools of the given shape that each hold the whole catalogue."""
        zeros = np.zeros(shape, dtype=np.int64)
        return Pools(zeros, np.full(shape, len(self.order)), zeros, zeros)

    def whole_clusters(self, clusters: Positions) -> Pools:
        """Pools that each hold one cluster."""
        starts = self.cluster_starts[clusters]
        zeros = np.zeros_like(starts)
        return Pools(starts, self.cluster_starts[clusters + 1] - starts, starts, zeros)

    def other_cells(self, rows: Rows, clusters: Codes) -> Pools:
        """Pools that each hold a row's cluster without the row's cell."""
        cells = self.cells[rows]
        starts, excluded_starts = self.cluster_starts[clusters], self.cell_starts[cells]
        excluded_sizes = self.cell_starts[cells + 1] - excluded_starts
        return Pools(
            starts, self.cluster_starts[clusters + 1] - starts, excluded_starts, excluded_sizes
        )


def build_layout(codes1: Codes, codes2: Codes, num_codes1: int, num_codes2: int) -> Layout:
    """Order the rows by cell; `num_codes1` is K1, `num_codes2` is K2."""
    cells = codes1.astype(np.int64) * num_codes2 + codes2
    sizes = np.bincount(cells, minlength=num_codes1 * num_codes2)
    cell_starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    keys = (cells << 32) | np.arange(len(cells))  # a stable argsort takes six times as long
    keys.sort()
    order = keys.astype(np.int32)
    return Layout(order, cells, cell_starts[::num_codes2].copy(), cell_starts)


class ClusterProposal:
    """Proposal distribution of easy negatives over clusters, P(k | c), stored cumulatively.

    P(k | c) is proportional to weight_k exp(-|C_k - C_c| / T), over the other clusters or over
    all. Beyond EAGER_CLUSTERS, the distribution of a cluster is computed on first use: those of
    8,000 clusters take 0.5 GB.

    Args:
        centroids: [K1, dim].
        weights: [K1]; 0 for clusters that are never sampled. Two are above 0 if `has_own` is
            False.
        temperature_share: T as a fraction of the median distance between two centroids, of at
            most EAGER_CLUSTERS of them; if that is 0, T is 1.
        has_own: Whether the cluster c itself is sampled.

    Source: ESANS (Xing et al., WWW 2025), MSAC; the form of T and the weights are our choice.
    """

    def __init__(
        self, centroids: Floats, weights: Doubles, temperature_share: float, has_own: bool = False
    ) -> None:
        self._points = centroids.astype(np.float64)
        with np.errstate(divide="ignore"):
            self._log_weights = np.log(weights)
        self._has_own = has_own
        self._temperature = temperature_share * _median_distance(self._points) or 1.0
        num_clusters = len(centroids)
        # [K1, num_columns], columns a power of two; pages never written take no memory
        self._cumulative = np.empty((num_clusters, 1 << (num_clusters - 1).bit_length()))
        self._slots = np.full(num_clusters, -1)  # row of each cluster in `_cumulative`
        self._num_slots = 0
        self._lock = threading.Lock()
        self.is_complete = num_clusters <= EAGER_CLUSTERS
        if self.is_complete:
            self._append(np.arange(num_clusters))

    def sample(self, clusters: Codes, rng: np.random.Generator) -> Positions:
        """Sample a cluster for each of `clusters`, by bisection."""
        num_columns, flat = self._cumulative.shape[1], self._cumulative.reshape(-1)
        uniform = rng.random(clusters.shape)
        starts = self._slots_of(clusters) * num_columns
        positions: Positions = starts.copy()
        step = num_columns // 2
        while step:
            positions += step * (flat[positions + (step - 1)] <= uniform)
            step //= 2
        positions -= starts
        return positions

    def probabilities(self, clusters: Codes, others: Codes) -> Doubles:
        """Compute P(other | cluster); the shapes broadcast."""
        slots = self._slots_of(clusters)
        before = np.where(others > 0, self._cumulative[slots, np.maximum(others - 1, 0)], 0.0)
        probabilities: Doubles = self._cumulative[slots, others] - before
        return probabilities

    def mean_probabilities(self, weights: Doubles) -> Doubles:
        """Compute the sum over c of weights[c] P(k | c) for each k; [K1] to [K1]."""
        used = np.flatnonzero(weights)
        slots = self._slots_of(used)
        parts = [slice(begin, begin + EAGER_CLUSTERS) for begin in _begins(used, EAGER_CLUSTERS)]
        cumulative = sum(weights[used[part]] @ self._cumulative[slots[part]] for part in parts)
        means: Doubles = np.diff(cumulative, prepend=0.0)[: len(weights)]
        return means

    def _slots_of(self, clusters: NDArray[np.integer]) -> Positions:
        """Return the row of each cluster in the table, computed if it is missing."""
        if not self.is_complete:
            with self._lock:  # the service samples in several threads
                missing = np.unique(clusters[self._slots[clusters] < 0])
                for begin in _begins(missing, BLOCK_CLUSTERS):
                    self._append(missing[begin : begin + BLOCK_CLUSTERS])
        slots: Positions = self._slots[clusters]
        return slots

    def _append(self, clusters: Positions) -> None:
        """Compute the distributions of clusters and append them to the table."""
        logits = _distances(self._points, clusters)
        logits /= -self._temperature
        logits += self._log_weights
        if not self._has_own:
            logits[np.arange(len(clusters)), clusters] = -np.inf
        logits -= logits.max(axis=1, keepdims=True)
        end, num_clusters = self._num_slots + len(clusters), len(self._points)
        rows = self._cumulative[self._num_slots : end]
        rows[:, num_clusters:] = 1
        np.cumsum(np.exp(logits, out=logits), axis=1, out=rows[:, :num_clusters])
        rows[:, :num_clusters] /= rows[:, num_clusters - 1 : num_clusters].copy()
        self._slots[clusters] = np.arange(self._num_slots, end)
        self._num_slots = end


def _begins(values: Positions, size: int) -> range:
    """Return the begin of each part of at most `size` values."""
    return range(0, len(values), size)


def _median_distance(points: Doubles) -> float:
    """Compute the median distance between two of at most EAGER_CLUSTERS points; 0 of one."""
    if len(points) < 2:
        return 0.0
    if len(points) > EAGER_CLUSTERS:
        points = points[np.linspace(0, len(points) - 1, EAGER_CLUSTERS).astype(np.int64)]
    distances = _distances(points, np.arange(len(points)))
    return float(np.median(distances[~np.eye(len(points), dtype=np.bool_)]))


def _distances(points: Doubles, rows: Positions) -> Doubles:
    """Compute the Euclidean distances of some points to all; [rows, num_points]."""
    squares = (points**2).sum(axis=1)
    # a copy of all points would be multiplied with other rounding
    distances = (points if len(rows) == len(points) else points[rows]) @ points.T
    distances *= -2
    distances += squares[rows, None]
    distances += squares
    distances[np.arange(len(rows)), rows] = 0
    return np.sqrt(np.maximum(distances, 0, out=distances), out=distances)
