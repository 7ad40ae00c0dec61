"""Proposal distribution over warm items that combines the cluster map with their popularity."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.arrays import Rows
from index.cluster_layout import ClusterProposal, Doubles, Layout, Positions
from index.cluster_map import Booleans, ClusterMap
from trainer.samplers.config import EsansConfig


class WarmProposal:
    """Easy and hard negatives among the warm items of a cluster map.

    With target counts n, the exponents beta and gamma of the configuration, and W_k the sum of
    n_l^beta over the items of cluster k:

    - easy: q(j | i) = P(k | c1(i)) n_j^beta / W_k, P(k | c) ~ W_k^gamma exp(-|C_k - C_c| / T);
      at gamma = 1 and a large T this is popularity^beta.
    - hard: in proportion to n_j^beta in the positive's cluster without its cell, or easy where
      that has no warm item.

    Cold items are never sampled. Our choice, as opposed to the uniform distributions of MSAC,
    which `ClusterMap` has. A sample costs two bisections.

    Args:
        clusters: Cluster map.
        target_share: [num_items], share of each item of the training targets.
        config: Configuration of the sampler.
    """

    def __init__(self, clusters: ClusterMap, target_share: Doubles, config: EsansConfig) -> None:
        self.clusters, self.config = clusters, config
        is_warm = target_share > 0
        self._weights = np.where(is_warm, target_share**config.exponent, 0.0)
        order = self._layout.order
        self._cumulative = _cumulate(self._weights[order])  # [num_items + 1], by position
        clusters_at, cells_at = self._layout.cluster_starts, self._layout.cell_starts
        self._cluster_weights = np.diff(self._cumulative[clusters_at])  # [K1]
        self._cell_weights = np.diff(self._cumulative[cells_at])  # [K1 * K2]
        num_warm = _cumulate(is_warm[order])
        self._warm_in_cluster = np.diff(num_warm[clusters_at])
        self._warm_in_cell = np.diff(num_warm[cells_at])
        cell_shares = np.diff(_cumulate(target_share[order])[cells_at])
        self._is_masked_cell = cell_shares <= config.max_cell_share
        self._cluster_proposal = ClusterProposal(
            clusters.centroids,
            self._cluster_weights**config.cluster_exponent * (self._cluster_weights > 0),
            clusters.temperature_share,
            config.own_cluster or (self._cluster_weights > 0).sum() == 1,
        )

    @property
    def _layout(self) -> Layout:
        return self.clusters.layout

    @cached_property
    def _share_of_cluster(self) -> Doubles:
        """Probability of each item within its cluster, [num_items]; 0 if it is cold."""
        totals = self._cluster_weights[self.clusters.codes1]
        return np.divide(self._weights, totals, out=np.zeros_like(totals), where=totals > 0)

    def sample_easy(self, positives: Rows, count: int, rng: np.random.Generator) -> Rows:
        """Sample easy negatives; [batch, count]."""
        codes = np.repeat(self.clusters.codes1[positives][:, None], count, axis=1)
        return self._sample_from(self._cluster_proposal.sample(codes, rng), rng)

    def sample_easy_pairs(self, positives: Rows, rng: np.random.Generator) -> Rows:
        """Sample pairs of items of one cluster, each distributed as `sample_easy`; [batch, 2]."""
        sampled = self._cluster_proposal.sample(self.clusters.codes1[positives], rng)
        return self._sample_from(np.repeat(sampled[:, None], 2, axis=1), rng)

    def sample_hard(self, positives: Rows, count: int, rng: np.random.Generator) -> Rows:
        """Sample hard negatives; [batch, count]."""
        clusters, cells = self.clusters.codes1[positives], self._layout.cells[positives]
        starts, excluded = self._layout.cell_starts[cells], self._cell_weights[cells]
        points = rng.random((len(positives), count))
        points *= (self._cluster_weights[clusters] - excluded)[:, None]
        points += self._cumulative[self._layout.cluster_starts[clusters]][:, None]
        points += excluded[:, None] * (points >= self._cumulative[starts][:, None])
        rows = self._rows_at(points, self._layout.cluster_starts[clusters + 1][:, None])
        is_alone = ~self._has_hard(positives)
        rows[is_alone] = self.sample_easy(positives[is_alone], count, rng)
        return rows

    def easy_probability(self, positives: Rows, rows: Rows) -> Doubles:
        """Compute the probability of rows ([n] or [batch, n]) as easy samples; [batch, n]."""
        codes = self.clusters.codes1
        probabilities = self._cluster_proposal.probabilities(codes[positives][:, None], codes[rows])
        return probabilities * self._share_of_cluster[rows]

    def mean_easy_probability(self, positives: Rows, rows: Rows) -> Doubles:
        """Compute the mean of `easy_probability` over the positives, for rows [n]; [n]."""
        codes = self.clusters.codes1
        counts = np.bincount(codes[positives], minlength=len(self._cluster_weights))
        means = self._cluster_proposal.mean_probabilities(counts / len(positives))  # [K1]
        probabilities: Doubles = means[codes[rows]] * self._share_of_cluster[rows]
        return probabilities

    def hard_probability(self, positives: Rows, rows: Rows) -> Doubles:
        """Compute the probability of rows ([n] or [batch, n]) as hard samples; [batch, n]."""
        codes, cells = self.clusters.codes1, self._layout.cells
        totals = self._cluster_weights[codes[positives]] - self._cell_weights[cells[positives]]
        is_own_cluster = codes[rows] == codes[positives][:, None]
        batch, columns = np.divmod(np.flatnonzero(is_own_cluster), rows.shape[-1])
        own = np.broadcast_to(rows, is_own_cluster.shape)[batch, columns]
        is_in = cells[own] != cells[positives[batch]]
        is_alone = ~self._has_hard(positives)
        probabilities: Doubles = np.zeros(is_own_cluster.shape)
        probabilities[batch, columns] = (
            is_in * self._weights[own] / np.where(is_alone, 1, totals)[batch]
        )
        if is_alone.any():
            own_rows = rows if rows.ndim == 1 else rows[is_alone]
            probabilities[is_alone] = self.easy_probability(positives[is_alone], own_rows)
        return probabilities

    def is_same_cell(self, positives: Rows, rows: Rows) -> Booleans:
        """Mark rows ([n] or [batch, n]) in the own cell, unless it is too large; [batch, n]."""
        is_masked_cell = self._is_masked_cell[self._layout.cells[positives]]
        is_same: Booleans = self.clusters.is_same_cell(positives, rows) & is_masked_cell[:, None]
        return is_same

    def _has_hard(self, positives: Rows) -> Booleans:
        """Whether the positive's cluster has warm items outside its cell; [batch]."""
        in_cell = self._warm_in_cell[self._layout.cells[positives]]
        has_hard: Booleans = self._warm_in_cluster[self.clusters.codes1[positives]] > in_cell
        return has_hard

    def _sample_from(self, clusters: Positions, rng: np.random.Generator) -> Rows:
        """Sample an item of each cluster in proportion to its weight; shape of `clusters`."""
        starts = self._cumulative[self._layout.cluster_starts[clusters]]
        points = starts + rng.random(clusters.shape) * self._cluster_weights[clusters]
        return self._rows_at(points, self._layout.cluster_starts[clusters + 1])

    def _rows_at(self, points: Doubles, ends: Positions) -> Rows:
        """Look up the items at points of the cumulated weights, before the positions `ends`."""
        below = np.nextafter(self._cumulative[ends], 0)  # rounding may reach the next cluster
        points = np.minimum(points, below)
        return self._layout.order[np.searchsorted(self._cumulative, points, side="right") - 1]


def _cumulate(values: NDArray[Any]) -> Doubles:
    """Cumulate values after a 0; [n + 1]."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
