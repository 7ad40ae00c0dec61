"""Cluster map: the cluster and cell of each item, and MSAC sampling of negatives from it.

The trainer builds it; trainer and service sample from it and replace it while they run.
`cluster_map_io` stores it. External training loops get negatives by id with their expected
log counts.
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
    ClusterProposal,
    Codes,
    Doubles,
    Layout,
    Pools,
    Positions,
    build_layout,
    sample_offsets,
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
MAX_LEVEL_1_CODES = 8_193  # 8,192, and the cluster of unknown items in a joined map
MAX_LEVEL_2_CODE = 4_095  # bounds the cell table that a damaged map can request


@dataclass(frozen=True, eq=False)
class ClusterMap:
    """Semantic IDs of all items, and samplers of negatives.

    The layout and P(k | c), float64, are computed on first use and cached. An
    empty pool falls back to the next: hard, easy, other cells (if there is only one cluster),
    all items (if there is only one cell). Only the last samples from the positive's own cell.

    Attributes:
        codes1: [num_items], level-1 cluster.
        codes2: [num_items], level-2 code; a cell is a pair of codes.
        centroids: [K1, dim], of level 1, in the aligned space.
        id_hashes: [num_items], hashes of the item ids in row order.
        temperature_share: T as a fraction of the median distance between two centroids.
        made: How and when the map was built, for the manifest; not part of the version.

    Raises:
        ValueError: Shapes or dtypes disagree, or a code is out of range.
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
        """First 16 hex digits of the sha256 over everything that determines the negatives."""
        digest = hashlib.sha256(
            repr((float(self.temperature_share), self.centroids.shape)).encode()
        )
        for name in ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, name)).data)
        return digest.hexdigest()[:16]

    @cached_property
    def layout(self) -> Layout:
        """Rows ordered by cell."""
        return build_layout(self.codes1, self.codes2, len(self.centroids), self.num_level_2_codes)

    @cached_property
    def proposal(self) -> ClusterProposal:
        """Proposal distribution of easy negatives over clusters."""
        is_used = (self.layout.cluster_sizes > 0).astype(np.float64)
        return ClusterProposal(self.centroids, is_used, self.temperature_share)

    @property
    def is_warm(self) -> bool:
        """Whether sampling computes no further distribution of a cluster."""
        return self.has_single_cluster or self.proposal.is_complete

    @cached_property
    def num_level_2_codes(self) -> int:
        """Number of level-2 codes, K2."""
        return int(self.codes2.max()) + 1

    @cached_property
    def has_single_cluster(self) -> bool:
        """Whether all items are in one cluster, so there is no other to sample."""
        return int((self.layout.cluster_sizes > 0).sum()) == 1

    def sample_easy(self, positives: Rows, count: int, rng: np.random.Generator) -> Rows:
        """Sample negatives from other clusters, preferring near ones; [batch, count].

        P(k | c1) = softmax over k != c1 of (-|C_k - C_c1| / T), then an item uniformly in k.
        Source: ESANS (Xing et al., WWW 2025), MSAC.
        """
        pools = self._easy_pools(np.repeat(positives[:, None], count, axis=1), rng)
        return self._rows_at(pools.positions(sample_offsets(pools.counts, rng)))

    def sample_easy_pairs(self, positives: Rows, rng: np.random.Generator) -> Rows:
        """Sample pairs of items of one other cluster, distinct if possible; [batch, 2].

        Each item of a pair has the distribution of `sample_easy`.
        """
        pools = self._easy_pools(positives, rng)
        first = sample_offsets(pools.counts, rng)
        further = np.minimum(1 + sample_offsets(pools.counts - 1, rng), pools.counts - 1)
        second = (first + further) % pools.counts
        return self._rows_at(np.stack([pools.positions(first), pools.positions(second)], axis=1))

    def sample_hard(self, positives: Rows, count: int, rng: np.random.Generator) -> Rows:
        """Sample uniformly from the positive's cluster without its cell; [batch, count].

        Falls back to easy negatives. Source: ESANS (Xing et al., WWW 2025), MSAC.
        """
        positives = np.repeat(positives[:, None], count, axis=1)
        pools = self._other_cells(positives)
        rows = self._rows_at(pools.positions(sample_offsets(pools.counts, rng)))
        is_empty = pools.counts == 0
        if is_empty.any():
            rows[is_empty] = self.sample_easy(positives[is_empty], 1, rng)[:, 0]
        return rows

    def easy_probability(self, positives: Rows, rows: Rows) -> Doubles:
        """Compute the probability that one easy sample for each positive is each row.

        Args:
            positives: [batch].
            rows: [n], shared by all positives, or [batch, n].

        Returns:
            [batch, n]; over all rows of the catalogue they sum to 1.
        """
        if self.has_single_cluster:
            probabilities = self._other_cells_probability(positives, rows)
            probabilities[self._other_cells(positives).counts == 0] = 1 / len(self)
            return probabilities
        clusters = self.codes1[rows]
        probabilities = self.proposal.probabilities(self.codes1[positives][:, None], clusters)
        probabilities /= self.layout.cluster_sizes[clusters]
        return probabilities

    def hard_probability(self, positives: Rows, rows: Rows) -> Doubles:
        """Compute the probability of hard samples; shapes as in `easy_probability`."""
        probabilities = self._other_cells_probability(positives, rows)
        is_empty = self._other_cells(positives).counts == 0
        if is_empty.any():
            own_rows = rows if rows.ndim == 1 else rows[is_empty]
            probabilities[is_empty] = self.easy_probability(positives[is_empty], own_rows)
        return probabilities

    def mean_easy_probability(self, positives: Rows, rows: Rows) -> Doubles:
        """Compute the mean of `easy_probability` over the positives.

        It costs K1 columns per distinct cluster. Sharing easy samples across the batch is our
        choice.

        Args:
            positives: [batch].
            rows: [n].

        Returns:
            [n].
        """
        if self.has_single_cluster:
            mean: Doubles = self.easy_probability(positives, rows).mean(axis=0)
            return mean
        counts = np.bincount(self.codes1[positives], minlength=len(self.centroids))
        means: Doubles = self.proposal.mean_probabilities(counts / len(positives))  # [K1]
        clusters = self.codes1[rows]
        probabilities: Doubles = means[clusters] / self.layout.cluster_sizes[clusters]
        return probabilities

    def is_same_cell(self, positives: Rows, rows: Rows) -> Booleans:
        """Mark rows ([n] or [batch, n]) in each positive's own cell; [batch, n].

        They are likely false negatives. Source: ESANS (Xing et al., WWW 2025), MSAC.
        """
        cells = self.layout.cells
        is_same: Booleans = cells[rows] == cells[positives][:, None]
        return is_same

    def _easy_pools(self, positives: Rows, rng: np.random.Generator) -> Pools:
        """Choose the pool of each easy sample; any shape."""
        if self.has_single_cluster:
            return self._other_cells(positives).fill_empty(self.layout.all_items(positives.shape))
        return self.layout.whole_clusters(self.proposal.sample(self.codes1[positives], rng))

    def _other_cells(self, positives: Rows) -> Pools:
        return self.layout.other_cells(positives, self.codes1[positives])

    def _other_cells_probability(self, positives: Rows, rows: Rows) -> Doubles:
        """1 / count for rows in the positive's cluster but not its cell, else 0."""
        is_in = self.codes1[rows] == self.codes1[positives][:, None]
        is_in &= ~self.is_same_cell(positives, rows)
        counts = self._other_cells(positives).counts
        probabilities: Doubles = is_in / np.maximum(counts, 1)[:, None]
        return probabilities

    def _rows_at(self, positions: Positions) -> Rows:
        """Look up rows by position; positions of empty pools may lie past the end."""
        return self.layout.order[np.minimum(positions, len(self) - 1)]


def _faults(clusters: ClusterMap) -> list[str]:
    """List the faults of the arrays of a map."""
    shapes = {
        name: (getattr(clusters, name).dtype.name, getattr(clusters, name).shape) for name in ARRAYS
    }
    count, (kind, shape) = len(clusters.codes1), shapes["centroids"]
    faults = [
        f"{name} is {shapes[name]}, expected {(dtype, (count,))}"
        for name, (dtype, ndim) in KINDS.items()
        if ndim == 1 and shapes[name] != (dtype, (count,))
    ]
    if kind != "float32" or len(shape) != 2 or 0 in shape:
        faults.append(f"centroids is {shapes['centroids']}, expected float32, (K1, dim)")
    elif not np.isfinite(clusters.centroids).all():
        faults.append("centroids has non-finite values, expected finite ones")
    if faults or not count:
        return faults or ["codes1 is empty, expected at least one item"]
    if shape[0] > MAX_LEVEL_1_CODES:
        faults.append(f"centroids is of {shape[0]:,} clusters, expected {MAX_LEVEL_1_CODES:,}")
    if clusters.codes1.min() < 0 or clusters.codes1.max() >= shape[0]:
        faults.append(f"codes1 is out of range, expected 0..{shape[0] - 1}")
    if clusters.codes2.min() < 0 or clusters.codes2.max() > MAX_LEVEL_2_CODE:
        faults.append(f"codes2 is out of range, expected 0..{MAX_LEVEL_2_CODE}")
    if not 0 < clusters.temperature_share < np.inf:
        faults.append(f"temperature_share is {clusters.temperature_share}, expected above 0")
    return faults


@dataclass(frozen=True)
class NegativeCounts:
    """Number of easy and hard negatives per positive, each 0 or more."""

    easy: int
    hard: int


@dataclass(frozen=True)
class NegativeRows:
    """Sampled negatives as rows.

    Attributes:
        rows: [batch, easy + hard], easy ones first.
        log_counts: [batch, easy + hard], float32, log of the expected count of each row among
            the easy and hard samples of its positive.
    """

    rows: Rows
    log_counts: Floats


@dataclass(frozen=True)
class Negatives:
    """Sampled negatives as item ids.

    Attributes:
        positives: Known positives in request order.
        ids: easy + hard ids for each positive, flattened; easy ones first.
        sampled: The same negatives as rows.
        unknown: Positives that are not in the id table.
    """

    positives: list[str]
    ids: list[str]
    sampled: NegativeRows
    unknown: list[str]


def sample_negatives(
    positives: Sequence[str],
    items: IdTable,
    clusters: ClusterMap,
    counts: NegativeCounts,
    rng: np.random.Generator,
) -> Negatives:
    """Sample negatives for each known positive independently, including repeated positives.

    `clusters` must be a map of `items`, in their row order.
    """
    rows = items.rows_of(positives)
    sampled = sample_negative_rows(rows[rows >= 0], clusters, counts, rng)
    return Negatives(
        positives=[positives[i] for i in np.flatnonzero(rows >= 0).tolist()],
        ids=items.ids_of(sampled.rows.reshape(-1)),
        sampled=sampled,
        unknown=[positives[i] for i in np.flatnonzero(rows < 0).tolist()],
    )


def sample_negative_rows(
    positives: Rows, clusters: ClusterMap, counts: NegativeCounts, rng: np.random.Generator
) -> NegativeRows:
    """Sample easy and hard negatives for each row of `positives`, [batch].

    The expected count of row j is m_easy q_easy(j) + m_hard q_hard(j): both kinds may sample a
    row, because hard samples fall back to easy ones if a cluster has only one cell.
    Source: ESANS (Xing et al., WWW 2025), MSAC.
    """
    easy = clusters.sample_easy(positives, counts.easy, rng)
    hard = clusters.sample_hard(positives, counts.hard, rng)
    rows = np.concatenate([easy, hard], axis=1)  # [batch, easy + hard]
    expected = counts.easy * clusters.easy_probability(positives, rows)
    expected += counts.hard * clusters.hard_probability(positives, rows)
    return NegativeRows(rows, np.log(expected).astype(np.float32))
