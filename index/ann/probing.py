"""Probing policies: choose the inverted lists of a query by the expected density of results.

A query close to one coarse centroid has its neighbours in a few lists, a query between many
centroids in many. A fixed nprobe is too high for the first and too low for the second. The density
of results in a list is modelled as exp(slope * centroid score). A list is probed if its density is
at least exp(log_threshold) times the mean density over all items. Measurements:
docs/decisions/0012-lists-by-what-they-hold.md.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from index.arrays import Floats

TUNED_COUNT = 100  # number of results at depth 1
NEARLY_ALL = 0.98  # filters that keep a larger share are searched as if they kept all
MAX_FILTER_DEPTH = 2.0  # depth factor: a filter may drop the query's own neighbourhood
FILTER_ROWS = 50  # minimum of rows to scan per result under a filter, for the same reason


@dataclass(frozen=True)
class Limits:
    """Limits in rows at which a search changes its method, measured on a million items.

    Attributes:
        max_scanned_rows: Up to this many eligible rows are scored exhaustively.
        max_probed_rows: Rows of the lists that a search on the fast path may probe.
        max_posting_rows: Rows of the postings that a search on the fast path may read.
        max_dropped_rows: Up to this many excluded rows are dropped from the results of a batched
            search; a query with more is searched alone.
    """

    max_scanned_rows: int = 8_192
    max_probed_rows: int = 131_072
    max_posting_rows: int = 65_536
    max_dropped_rows: int = 256


LIMITS = Limits()


class SearchEffort(NamedTuple):
    """How many lists a search probes.

    Attributes:
        depth: Rank of the last result among all items, divided by TUNED_COUNT; infinite: probe
            all lists.
        min_lists: Minimum number of lists per query.
        max_lists: Maximum number of lists per query; None: all.
    """

    depth: float = 1.0
    min_lists: int = 1
    max_lists: int | None = None

    def scale(self, factor: float) -> "SearchEffort":
        """Return the effort with the depth multiplied by `factor`."""
        return self._replace(depth=self.depth * factor)


class ProbingPolicy(NamedTuple):
    """Policy for results at one depth; see the module for log_threshold and slope."""

    depth: float
    log_threshold: float
    slope: float


class Probes(NamedTuple):
    """Lists to probe, best centroid first.

    Attributes:
        lists: [queries, max_lists] int64, padded with -1.
        scores: [queries, max_lists], inner products with the coarse centroids.
    """

    lists: NDArray[np.int64]
    scores: Floats


def effort_for(
    count: int, share: float, rows_per_list: float, limits: Limits = LIMITS
) -> SearchEffort:
    """Return the effort for the best `count` items under a filter that keeps `share` of them.

    The best 100 of a tenth of the items are expected among the best 1,000 of all. Up to
    TUNED_COUNT the effort is the same, because such queries are searched together.
    """
    count = max(count, TUNED_COUNT)
    depth, max_lists = count / TUNED_COUNT, round(limits.max_probed_rows / rows_per_list)
    if share >= NEARLY_ALL:
        return SearchEffort(depth, 1, max(1, max_lists))
    min_lists = round(FILTER_ROWS * count / rows_per_list)
    return SearchEffort(depth / share, max(1, min_lists), max(1, max_lists))


def slack(count: int) -> int:
    """Return the number of extra rows to fetch so that 8-bit rounding costs no recall.

    For the best 100 of a million items, 104 rows miss 0.1 % and 109 rows 0.01 %.
    """
    return 4 + count // 20


@dataclass(frozen=True)
class CoarseCentroids:
    """Coarse centroids of an index with their probing policies.

    Attributes:
        transposed: [dim, lists], the layout that BLAS multiplies fastest.
        shares: [lists], fraction of all rows in each list.
        policies: Ascending by depth.
        filter_depth: Depth factor; above 1 for a filter that keeps an uneven part of the lists.
    """

    transposed: Floats
    shares: Floats
    policies: Sequence[ProbingPolicy]
    filter_depth: float = 1.0

    @classmethod
    def build(
        cls, centroids: Floats, sizes: NDArray[np.int64], policies: Sequence[ProbingPolicy]
    ) -> Self:
        """Build from centroids [lists, dim] and the number of rows in each list."""
        return cls(np.ascontiguousarray(centroids.T), shares_of(sizes), policies)

    def reweight(self, sizes: NDArray[np.int64]) -> Self:
        """Return the same centroids weighted for a filter.

        The unevenness is 1 for a filter that keeps random rows, 1 / share for one that keeps
        whole lists.

        Args:
            sizes: [lists], number of rows that the filter keeps.
        """
        shares = shares_of(sizes)
        unevenness = float((shares**2 / np.maximum(self.shares, np.float32(1e-12))).sum())
        return replace(self, shares=shares, filter_depth=min(unevenness**2, MAX_FILTER_DEPTH))

    def select(self, lists: NDArray[np.integer]) -> Self:
        """Return a subset of the centroids."""
        columns = np.ascontiguousarray(self.transposed[:, lists])
        return replace(self, transposed=columns, shares=self.shares[lists])

    def policy_at(self, depth: float) -> ProbingPolicy:
        """Interpolate between the tuned policies by the logarithm of the depth.

        Beyond the deepest policy, density falls in proportion to depth.
        """
        first, last = self.policies[0], self.policies[-1]
        if depth <= first.depth:
            return first
        if depth >= last.depth:
            return last._replace(
                depth=depth, log_threshold=last.log_threshold - math.log(depth / last.depth)
            )
        after = bisect_left(self.policies, (depth,))
        near, far = self.policies[after - 1], self.policies[after]
        weight = math.log(depth / near.depth) / math.log(far.depth / near.depth)
        return ProbingPolicy(
            depth,
            near.log_threshold + (far.log_threshold - near.log_threshold) * weight,
            near.slope + (far.slope - near.slope) * weight,
        )

    def probe(self, queries: Floats, effort: SearchEffort) -> Probes:
        """Choose the lists to probe for each query [queries, dim]."""
        scores = self._scores(queries)
        thresholds = self._thresholds(scores, effort.depth * self.filter_depth)
        is_probed = scores >= thresholds[:, np.newaxis]
        positions = np.flatnonzero(is_probed)  # flattened: many times as fast
        counts = np.bincount(positions // scores.shape[1], minlength=len(scores))
        most = min(effort.max_lists or scores.shape[1], scores.shape[1])
        num_probed = counts.clip(min(effort.min_lists, most), most)
        if (counts != num_probed).any():
            for query in np.flatnonzero(counts != num_probed).tolist():
                best = np.argpartition(scores[query], -num_probed[query])[-num_probed[query] :]
                is_probed[query] = False
                is_probed[query, best] = True
            positions = np.flatnonzero(is_probed)
        return _sort_probes(positions, num_probed, scores)

    def _scores(self, queries: Floats) -> Floats:
        """Return inner products [queries, lists] that do not depend on the batch.

        A single query is duplicated, as BLAS sums a matrix-vector product in another order.
        """
        batch = queries if len(queries) > 1 else queries.repeat(2, axis=0)
        scores: Floats = (batch @ self.transposed)[: len(queries)]
        return scores

    def _thresholds(self, scores: Floats, depth: float) -> Floats:
        """Return the minimum centroid score of probed lists; [queries]."""
        if math.isinf(depth):
            return np.full(len(scores), -np.inf, dtype=np.float32)
        _, log_threshold, slope = self.policy_at(depth)
        mean = log_mean_density(scores, self.shares, slope)
        return np.asarray((mean + np.float32(log_threshold)) / np.float32(slope), dtype=np.float32)


def shares_of(sizes: NDArray[np.int64]) -> Floats:
    """Return the fraction of all rows in each list."""
    return np.asarray(sizes / max(1, sizes.sum()), dtype=np.float32)


def log_mean_density(scores: Floats, shares: Floats, slope: float) -> Floats:
    """Return the log of the mean density of results over all items; [queries].

    Args:
        scores: [queries, lists], scores of the coarse centroids.
        shares: [lists], fraction of all rows in each list.
        slope: See the module.
    """
    mean: Floats = np.log(np.vecdot(np.exp(np.float32(slope) * scores), shares))
    return mean


def _sort_probes(positions: NDArray[np.int64], counts: NDArray[np.int64], scores: Floats) -> Probes:
    """Sort the probed lists of each query by centroid score.

    Args:
        positions: Ascending positions of the probed lists in the flattened `scores`.
        counts: [queries], number of probed lists.
        scores: [queries, lists].
    """
    queries, lists = np.divmod(positions, scores.shape[1])
    own = scores[queries, lists]
    order = np.lexsort((-own, queries))
    columns = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = len(scores), counts.max()
    probes = Probes(np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.float32))
    probes.lists[queries, columns] = lists[order]
    probes.scores[queries, columns] = own[order]
    return probes
