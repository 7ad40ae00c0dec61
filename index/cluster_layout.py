"""What a cluster map derives once and draws from: rows side by side by cell, and nearness.

It knows codes and centroids, not what a positive or a negative is.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.arrays import Floats, Rows

Codes = NDArray[np.int32]
Doubles = NDArray[np.float64]
Places = NDArray[np.int64]


class Pools(NamedTuple):
    """Stretches of a row order to draw from, each with a hole that is left out.

    All four share one shape, that of the draws.
    """

    starts: Places
    sizes: Places
    hole_starts: Places
    hole_sizes: Places

    @property
    def counts(self) -> Places:
        """Return how many places there are to draw in each."""
        return self.sizes - self.hole_sizes

    def places(self, steps: Places) -> Places:
        """Return the place `steps` after each start, holes stepped over."""
        reached = self.starts + steps
        reached += self.hole_sizes * (reached >= self.hole_starts)
        return reached

    def or_else(self, others: "Pools") -> "Pools":
        """Take the other pool wherever one of these is empty."""
        is_empty = self.counts == 0
        if not is_empty.any():
            return self
        pairs = zip(self, others, strict=True)
        return Pools(*(np.where(is_empty, other, own) for own, other in pairs))


def draw_steps(counts: Places, rng: np.random.Generator) -> Places:
    """Draw uniformly from 0 .. count - 1, for each count; shape as `counts`."""
    return (rng.random(counts.shape) * counts).astype(np.int64)  # random() < 1, so below count


@dataclass(frozen=True)
class Layout:
    """All rows ordered by cell, so that a cluster and a cell are stretches of it.

    order           [items]      rows by (c1, c2)
    cells           [items]      c1 * K2 + c2 of each row
    cluster_starts  [K1 + 1]     where each cluster begins in `order`
    cell_starts     [K1*K2 + 1]  where each cell begins in `order`
    """

    order: Rows
    cells: Places
    cluster_starts: Places
    cell_starts: Places

    @property
    def cluster_sizes(self) -> Places:
        """Return how many items each cluster has; [K1]."""
        return np.diff(self.cluster_starts)

    def whole(self, shape: tuple[int, ...]) -> Pools:
        """Return the whole catalogue as pools of a shape."""
        none = np.zeros(shape, dtype=np.int64)
        return Pools(none, np.full(shape, len(self.order)), none, none)

    def clusters(self, clusters: Places) -> Pools:
        """Return whole clusters as pools."""
        starts = self.cluster_starts[clusters]
        none = np.zeros_like(starts)
        return Pools(starts, self.cluster_starts[clusters + 1] - starts, starts, none)

    def other_cells(self, rows: Rows, clusters: Codes) -> Pools:
        """Return each row's cluster without the row's own cell."""
        cells = self.cells[rows]
        starts, hole_starts = self.cluster_starts[clusters], self.cell_starts[cells]
        hole_sizes = self.cell_starts[cells + 1] - hole_starts
        return Pools(starts, self.cluster_starts[clusters + 1] - starts, hole_starts, hole_sizes)


def build_layout(codes1: Codes, codes2: Codes, width1: int, width2: int) -> Layout:
    """Order the rows by cell; `width1`, `width2` are the counts of codes, K1 and K2."""
    cells = codes1.astype(np.int64) * width2 + codes2
    sizes = np.bincount(cells, minlength=width1 * width2)
    cell_starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    order = np.argsort(cells, kind="stable").astype(np.int32)
    return Layout(order, cells, cell_starts[::width2].copy(), cell_starts)


@dataclass(frozen=True)
class Nearness:
    """Which other cluster a draw leads to: P(k | c), summed up for bisection.

    sums  [K1, columns]  each row ascending to 1; columns is K1 filled up to a power of two
    """

    sums: Doubles

    def draw(self, clusters: Codes, rng: np.random.Generator) -> Places:
        """Draw another cluster for each of `clusters`, by bisection of its row of sums."""
        columns, flat = self.sums.shape[1], self.sums.reshape(-1)
        chance = rng.random(clusters.shape)
        begins = clusters.astype(np.int64) * columns
        places: Places = begins.copy()
        step = columns // 2
        while step:
            places += step * (flat[places + (step - 1)] <= chance)
            step //= 2
        places -= begins
        return places

    def chances(self, clusters: Codes, others: Codes) -> Doubles:
        """Return P(other | cluster), the shapes broadcast against each other."""
        before = np.where(others > 0, self.sums[clusters, np.maximum(others - 1, 0)], 0.0)
        chances: Doubles = self.sums[clusters, others] - before
        return chances

    def mean_chances(self, shares: Doubles) -> Doubles:
        """Return sum over c of shares[c] P(k | c), for each k; [K1] to [K1]."""
        used = np.flatnonzero(shares)
        sums: Doubles = shares[used] @ self.sums[used]
        means: Doubles = np.diff(sums, prepend=0.0)[: len(shares)]
        return means


def build_nearness(centroids: Floats, sizes: Places, temperature_share: float) -> Nearness:
    """Sum up softmax over k of (-|C_k - C_c| / T) over the other clusters that have items.

    centroids          [K1, width]
    sizes              [K1]  at least two of them above 0
    temperature_share  T as a part of the median distance between two centroids

    Source: the ESANS paper, MSAC; the form of T and leaving out empty clusters are ours. Where
    the median distance is 0, T is 1.
    """
    logits = _distances(centroids.astype(np.float64))
    count = len(logits)
    median = float(np.median(logits[~np.eye(count, dtype=np.bool_)]))
    logits /= -(temperature_share * median or 1.0)
    np.fill_diagonal(logits, -np.inf)
    logits[:, sizes == 0] = -np.inf
    logits -= logits.max(axis=1, keepdims=True)
    columns = 1 << (count - 1).bit_length()
    sums = np.ones((count, columns))
    np.cumsum(np.exp(logits, out=logits), axis=1, out=sums[:, :count])
    sums[:, :count] /= sums[:, count - 1 : count].copy()
    return Nearness(sums)


def _distances(points: Doubles) -> Doubles:
    """Return the Euclidean distance of every two points; [count, width] to [count, count]."""
    squares = (points**2).sum(axis=1)
    distances = points @ points.T
    distances *= -2
    distances += squares[:, None]
    distances += squares
    np.fill_diagonal(distances, 0)
    return np.sqrt(np.maximum(distances, 0, out=distances), out=distances)
