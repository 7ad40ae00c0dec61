"""The map that negatives are drawn from: each item's cluster and cell, and what is near.

Made offline by the trainer, sampled by both sides, replaced while they run. It knows rows and
codes; how codes come about is the trainer's, how a map is kept is `cluster_map_io`'. Whoever
trains elsewhere gets negatives by id, with the law they were drawn by.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.arrays import Floats, Hashes, Rows
from index.cluster_layout import (
    Codes,
    Doubles,
    Layout,
    Nearness,
    Places,
    Pools,
    build_layout,
    build_nearness,
    draw_steps,
)
from index.ids import IdTable

Booleans = NDArray[np.bool_]

KINDS = {
    "codes1": ("int32", 1),
    "codes2": ("int32", 1),
    "centroids": ("float32", 2),
    "id_hashes": ("uint64", 1),
}
ARRAYS = tuple(KINDS)
CLUSTER_FILES = (*(f"cluster_map.{name}.npy" for name in ARRAYS), "cluster_map.json")
MOST_LEVEL_2 = 4_095  # so that a wrong number cannot ask for a huge table of cells


@dataclass(frozen=True, eq=False)
class ClusterMap:
    """Every item's codes, and the negatives that follow from them.

    codes1, codes2     [items]      the level-1 cluster and the level-2 code; one cell is both
    centroids          [K1, width]  of level 1, in the aligned space
    id_hashes          [items]      of the item ids, in row order
    temperature_share  T as a part of the median distance between two centroids
    made               how and when, for people and the manifest; no part of the version

    The row order by cell and the table P(k | c), K1 x K1 float64, are computed at the first
    draw and kept. Where a rule has nothing to draw from, the next takes its place: hard, then
    easy, then (one cluster alone) its other cells, then (one cell alone) the whole catalogue;
    only in that last case is an item of the positive's own cell, or itself, drawn.

    Raises ValueError at birth if shapes or types disagree, or a code points outside.
    """

    codes1: Codes
    codes2: Codes
    centroids: Floats
    id_hashes: Hashes
    temperature_share: float = 0.2
    made: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if faults := _faults(self):
            raise ValueError("; ".join(faults))

    def __len__(self) -> int:
        return len(self.codes1)

    @cached_property
    def version(self) -> str:
        """Return 16 hex digits of the sha256 over everything that negatives follow from."""
        digest = hashlib.sha256(
            repr((float(self.temperature_share), self.centroids.shape)).encode()
        )
        for name in ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, name)).data)
        return digest.hexdigest()[:16]

    @cached_property
    def layout(self) -> Layout:
        """Return the rows in order of their cells."""
        return build_layout(self.codes1, self.codes2, len(self.centroids), self.cell_width)

    @cached_property
    def nearness(self) -> Nearness:
        """Return the table that easy negatives choose their cluster by."""
        sizes = self.layout.cluster_sizes
        return build_nearness(self.centroids, sizes, self.temperature_share)

    @cached_property
    def cell_width(self) -> int:
        """Return the count of level-2 codes, K2."""
        return int(self.codes2.max()) + 1

    @cached_property
    def is_one_cluster(self) -> bool:
        """Return whether all items are of one cluster, so that there is no other to draw."""
        return int((self.layout.cluster_sizes > 0).sum()) == 1

    def easy(self, positives: Rows, count: int, rng: np.random.Generator) -> Rows:
        """Draw negatives of other clusters, nearer clusters more often; [batch, count].

        P(k | c1) = softmax over k != c1 of (-|C_k - C_c1| / T), then an item uniformly in k.
        Source: the ESANS paper, MSAC.
        """
        pools = self._easy_pools(np.repeat(positives[:, None], count, axis=1), rng)
        return self._rows_at(pools.places(draw_steps(pools.counts, rng)))

    def easy_pairs(self, positives: Rows, rng: np.random.Generator) -> Rows:
        """Draw two items of one other cluster each, different where it has two; [n, 2].

        Each of the two, taken alone, is drawn as by `easy`.
        """
        pools = self._easy_pools(positives, rng)
        first = draw_steps(pools.counts, rng)
        further = np.minimum(1 + draw_steps(pools.counts - 1, rng), pools.counts - 1)
        second = (first + further) % pools.counts
        return self._rows_at(np.stack([pools.places(first), pools.places(second)], axis=1))

    def hard(self, positives: Rows, count: int, rng: np.random.Generator) -> Rows:
        """Draw uniformly from the positive's cluster without its cell; [batch, count].

        An easy one where that is empty. Source: the ESANS paper, MSAC.
        """
        positives = np.repeat(positives[:, None], count, axis=1)
        pools = self._other_cells(positives)
        rows = self._rows_at(pools.places(draw_steps(pools.counts, rng)))
        is_empty = pools.counts == 0
        if is_empty.any():
            rows[is_empty] = self.easy(positives[is_empty], 1, rng)[:, 0]
        return rows

    def easy_chance(self, positives: Rows, rows: Rows) -> Doubles:
        """Return how likely one easy draw for each positive is each row.

        positives  [batch]
        rows       [n], shared by all, or [batch, n]
        returns    [batch, n]  over all rows of the catalogue they sum to 1
        """
        if self.is_one_cluster:
            chances = self._other_cells_chance(positives, rows)
            chances[self._other_cells(positives).counts == 0] = 1 / len(self)
            return chances
        clusters = self.codes1[rows]
        chances = self.nearness.chances(self.codes1[positives][:, None], clusters)
        chances /= self.layout.cluster_sizes[clusters]
        return chances

    def hard_chance(self, positives: Rows, rows: Rows) -> Doubles:
        """Return how likely one hard draw for each positive is each row; as `easy_chance`."""
        chances = self._other_cells_chance(positives, rows)
        is_empty = self._other_cells(positives).counts == 0
        if is_empty.any():
            some = rows if rows.ndim == 1 else rows[is_empty]
            chances[is_empty] = self.easy_chance(positives[is_empty], some)
        return chances

    def shared_chance(self, positives: Rows, rows: Rows) -> Doubles:
        """Return how likely an easy draw for a positive picked at random is each row.

        positives  [batch]
        rows       [n]
        returns    [n]  the mean of `easy_chance` over the positives, at the cost of K1 columns
                        for each cluster among them

        Sharing the draws of all positives with the whole batch is ours.
        """
        if self.is_one_cluster:
            mean: Doubles = self.easy_chance(positives, rows).mean(axis=0)
            return mean
        counts = np.bincount(self.codes1[positives], minlength=len(self.centroids))
        means: Doubles = self.nearness.mean_chances(counts / len(positives))  # [K1]
        clusters = self.codes1[rows]
        shares: Doubles = means[clusters] / self.layout.cluster_sizes[clusters]
        return shares

    def same_cell(self, positives: Rows, rows: Rows) -> Booleans:
        """Tell which rows ([n] or [batch, n]) are of each positive's own cell; [batch, n].

        These are taken for probable false negatives. Source: the ESANS paper, MSAC.
        """
        cells = self.layout.cells
        is_same: Booleans = cells[rows] == cells[positives][:, None]
        return is_same

    def _easy_pools(self, positives: Rows, rng: np.random.Generator) -> Pools:
        """Choose where each positive's easy draw falls; any shape."""
        if self.is_one_cluster:
            return self._other_cells(positives).or_else(self.layout.whole(positives.shape))
        return self.layout.clusters(self.nearness.draw(self.codes1[positives], rng))

    def _other_cells(self, positives: Rows) -> Pools:
        return self.layout.other_cells(positives, self.codes1[positives])

    def _other_cells_chance(self, positives: Rows, rows: Rows) -> Doubles:
        """Return 1 / count for rows of the positive's cluster but not its cell, else 0."""
        is_in = self.codes1[rows] == self.codes1[positives][:, None]
        is_in &= ~self.same_cell(positives, rows)
        counts = self._other_cells(positives).counts
        chances: Doubles = is_in / np.maximum(counts, 1)[:, None]
        return chances

    def _rows_at(self, places: Places) -> Rows:
        """Return the rows at places of the order; those past its end, of empty pools, too."""
        return self.layout.order[np.minimum(places, len(self) - 1)]


def _faults(found: ClusterMap) -> list[str]:
    """Say what is wrong with the parts of a map."""
    shapes = {
        name: (getattr(found, name).dtype.name, getattr(found, name).shape) for name in ARRAYS
    }
    count, (kind, shape) = len(found.codes1), shapes["centroids"]
    faults = [
        f"{name} is {shapes[name]}, expected {(dtype, (count,))}"
        for name, (dtype, ndim) in KINDS.items()
        if ndim == 1 and shapes[name] != (dtype, (count,))
    ]
    if kind != "float32" or len(shape) != 2 or 0 in shape:
        faults.append(f"centroids is {shapes['centroids']}, expected float32, (K1, width)")
    elif not np.isfinite(found.centroids).all():
        faults.append("centroids holds a number that is not finite")
    if faults or not count:
        return faults or ["codes1 holds no item, expected one at least"]
    if found.codes1.min() < 0 or found.codes1.max() >= shape[0]:
        faults.append(f"codes1 points outside the {shape[0]} centroids")
    if found.codes2.min() < 0 or found.codes2.max() > MOST_LEVEL_2:
        faults.append(f"codes2 lies outside 0..{MOST_LEVEL_2}")
    if not 0 < found.temperature_share < np.inf:
        faults.append(f"temperature_share is {found.temperature_share}, expected above 0")
    return faults


@dataclass(frozen=True)
class Counts:
    """How many negatives each positive gets, 0 or more of either kind."""

    easy: int
    hard: int


@dataclass(frozen=True)
class Drawn:
    """Negatives of rows.

    rows        [batch, easy + hard]  item rows, the easy ones first
    log_counts  [batch, easy + hard]  float32, the log of how often each is expected among the
                                      row's easy and hard draws together
    """

    rows: Rows
    log_counts: Floats


@dataclass(frozen=True)
class Negatives:
    """Negatives of ids.

    positives  the known ones, in the order asked
    ids        easy + hard for each positive, side by side; easy ones first
    unknown    positives that the table of ids does not hold
    """

    positives: list[str]
    ids: list[str]
    drawn: Drawn
    unknown: list[str]


def negatives_for(
    positives: Sequence[str],
    items: IdTable,
    clusters: ClusterMap,
    counts: Counts,
    rng: np.random.Generator,
) -> Negatives:
    """Draw negatives for each known positive, independently; a repeated one is drawn anew.

    clusters  a map of these very items, in their row order
    """
    rows = items.rows_of(positives)
    drawn = draw_negatives(rows[rows >= 0], clusters, counts, rng)
    return Negatives(
        positives=[positives[place] for place in np.flatnonzero(rows >= 0).tolist()],
        ids=items.ids_of(drawn.rows.reshape(-1)),
        drawn=drawn,
        unknown=[positives[place] for place in np.flatnonzero(rows < 0).tolist()],
    )


def draw_negatives(
    positives: Rows, clusters: ClusterMap, counts: Counts, rng: np.random.Generator
) -> Drawn:
    """Draw easy and hard negatives for each row of a map; positives [batch].

    The count of row j expected for a positive is m_easy q_easy(j) + m_hard q_hard(j): a row
    that both kinds may draw (hard ones turn easy where a cluster is one cell) counts as both.
    Source: the ESANS paper, MSAC.
    """
    easy = clusters.easy(positives, counts.easy, rng)
    hard = clusters.hard(positives, counts.hard, rng)
    rows = np.concatenate([easy, hard], axis=1)  # [batch, easy + hard]
    expected = counts.easy * clusters.easy_chance(positives, rows)
    expected += counts.hard * clusters.hard_chance(positives, rows)
    return Drawn(rows, np.log(expected).astype(np.float32))
