"""Which inverted lists a query probes: those in which enough of what it seeks is expected.

A query close to one coarse centroid finds its neighbours in a few lists; one between many needs
many. A fixed nprobe is too many for the one and too few for the other. Results are expected to
be e times as dense in a list for each 1 / slope that its centroid scores more; a list is
probed where they are at least e ** log_threshold times as dense as in all items. The figures:
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

TUNED_COUNT = 100  # results that depth 1 is tuned for
NEARLY_ALL = 0.98  # of the items: searched as if it were all
MAX_FILTER_DEPTH = 2.0  # times deeper: a filter may leave out a query's own neighbourhood
FILTER_ROWS = 50  # to read for each result at least: the same, where clear clusters need few


@dataclass(frozen=True)
class Limits:
    """Where a search changes its method, in rows: measured on a million items.

    Attributes:
        few: At most as many are compared with a query one by one.
        visited: In the lists that one search may probe while others wait.
        looked_up: In the filter postings that may be read while others wait.
        many_excluded: Beyond this, the index skips excluded rows; fewer are dropped afterwards.
    """

    few: int = 8_192
    visited: int = 131_072
    looked_up: int = 65_536
    many_excluded: int = 256


LIMITS = Limits()


class SearchEffort(NamedTuple):
    """How much of an index a search reads.

    Attributes:
        depth: How deep the results lie in the ranking of all items, relative to the best
            TUNED_COUNT; infinite: probe all lists.
        min_lists: What a query probes at least.
        max_lists: None: all, if need be.
    """

    depth: float = 1.0
    min_lists: int = 1
    max_lists: int | None = None

    def times(self, factor: float) -> "SearchEffort":
        """Return a search so many times deeper."""
        return self._replace(depth=self.depth * factor)


class ProbingPolicy(NamedTuple):
    """The lists to probe for results at one depth; see the module for log_threshold and slope."""

    depth: float
    log_threshold: float
    slope: float


class Probes(NamedTuple):
    """The lists that queries probe, best centroid first.

    Attributes:
        lists: [queries, most] int64; -1 where a query probes fewer than another.
        scores: [queries, most] inner products with the coarse centroids.
    """

    lists: NDArray[np.int64]
    scores: Floats


def effort_for(
    count: int, share: float, rows_per_list: float, limits: Limits = LIMITS
) -> SearchEffort:
    """Return the effort for the best `count` of the share of the items that a filter keeps.

    The best 100 of a tenth of the items are among the best 1,000 of all.
    """
    depth, max_lists = max(1.0, count / TUNED_COUNT), round(limits.visited / rows_per_list)
    if share >= NEARLY_ALL:
        return SearchEffort(depth, 1, max(1, max_lists))
    min_lists = round(FILTER_ROWS * count / rows_per_list)
    return SearchEffort(depth / share, max(1, min_lists), max(1, max_lists))


def slack(count: int) -> int:
    """Return how many rows beyond `count` to fetch, so that 8-bit rounding costs no recall.

    Of the best 100 of a million, 104 rows hold all but 0.1 %, 109 all but 0.01 %.
    """
    return 4 + count // 20


@dataclass(frozen=True)
class CoarseCentroids:
    """The coarse centroids of an index, and the policies by which queries choose among them.

    Attributes:
        transposed: [dim, lists], a column each, as BLAS multiplies fastest.
        shares: [lists] of all rows, the part in each list.
        policies: By depth, ascending.
        filter_depth: How many times deeper to search: above 1 for a filter that keeps more of
            some lists than of others.
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

    def filtered(self, sizes: NDArray[np.int64]) -> Self:
        """Return the same for a filter that keeps so many rows of each list.

        What it keeps of the lists is uneven by 1 where it keeps rows at random, by 1 / share
        where it keeps whole lists.
        """
        shares = shares_of(sizes)
        unevenness = float((shares**2 / np.maximum(self.shares, np.float32(1e-12))).sum())
        return replace(self, shares=shares, filter_depth=min(unevenness**2, MAX_FILTER_DEPTH))

    def among(self, lists: NDArray[np.integer]) -> Self:
        """Return these centroids alone."""
        columns = np.ascontiguousarray(self.transposed[:, lists])
        return replace(self, transposed=columns, shares=self.shares[lists])

    def policy_at(self, depth: float) -> ProbingPolicy:
        """Interpolate between the tuned policies by the logarithm of the depth.

        Beyond the deepest, results are as many times less dense as they lie deeper.
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
        """Choose the lists of each query [queries, dim]."""
        scores = self._scores(queries)
        thresholds = self._thresholds(scores, effort.depth * self.filter_depth)
        is_probed = scores >= thresholds[:, np.newaxis]
        places = np.flatnonzero(is_probed)  # of two dimensions at once: many times as fast
        counts = np.bincount(places // scores.shape[1], minlength=len(scores))
        most = min(effort.max_lists or scores.shape[1], scores.shape[1])
        wanted = counts.clip(min(effort.min_lists, most), most)
        if (counts != wanted).any():
            for query in np.flatnonzero(counts != wanted).tolist():
                best = np.argpartition(scores[query], -wanted[query])[-wanted[query] :]
                is_probed[query] = False
                is_probed[query, best] = True
            places = np.flatnonzero(is_probed)
        return _in_order(places, wanted, scores)

    def _scores(self, queries: Floats) -> Floats:
        """Return inner products [queries, lists], the same whatever queries stand beside.

        A single query is multiplied as two: for one, BLAS adds up in another order.
        """
        several = queries if len(queries) > 1 else queries.repeat(2, axis=0)
        scores: Floats = (several @ self.transposed)[: len(queries)]
        return scores

    def _thresholds(self, scores: Floats, depth: float) -> Floats:
        """Return the score from which on a list is probed; [queries]."""
        if math.isinf(depth):
            return np.full(len(scores), -np.inf, dtype=np.float32)
        _, log_threshold, slope = self.policy_at(depth)
        mean = log_mean_density(scores, self.shares, slope)
        return np.asarray((mean + np.float32(log_threshold)) / np.float32(slope), dtype=np.float32)


def shares_of(sizes: NDArray[np.int64]) -> Floats:
    """Return the part of all rows in each list."""
    return np.asarray(sizes / max(1, sizes.sum()), dtype=np.float32)


def log_mean_density(scores: Floats, shares: Floats, slope: float) -> Floats:
    """Return the log of the mean density of results over all items; [queries].

    Args:
        scores: [queries, lists] of the coarse centroids; a list's log density is
            `slope * score`.
        shares: [lists] of all rows.
        slope: See the module.
    """
    mean: Floats = np.log(np.vecdot(np.exp(np.float32(slope) * scores), shares))
    return mean


def _in_order(places: NDArray[np.int64], counts: NDArray[np.int64], scores: Floats) -> Probes:
    """Put the lists of each query side by side, best centroid first.

    Args:
        places: Where in the flattened `scores` the lists are, ascending.
        counts: [queries] how many lists each query probes.
        scores: [queries, lists]
    """
    queries, lists = np.divmod(places, scores.shape[1])
    own = scores[queries, lists]
    order = np.lexsort((-own, queries))
    columns = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = len(scores), counts.max()
    probes = Probes(np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.float32))
    probes.lists[queries, columns] = lists[order]
    probes.scores[queries, columns] = own[order]
    return probes
