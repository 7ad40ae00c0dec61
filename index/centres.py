"""Which lists of an index a query visits: those whose centres lie near it, by its own measure.

A query that lies close to one centre finds its neighbours in a few lists; one that lies between
many needs many. A fixed number is too many for the one and too few for the other. So a list is
visited where enough of what is sought is expected among its rows: docs/decisions/0012.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SAMPLED = 64  # of so many scores the lowest is told well
MOST_LEFT_OUT = 8  # every eighth at the least


class Effort(NamedTuple):
    """How much of an index a search visits.

    depth  so many times as deep lies what is sought, as what the index was tuned to
    least  lists to visit in any case, about
    most   lists at most; None: all, if need be
    """

    depth: float = 1.0
    least: int = 1
    most: int | None = None

    def times(self, factor: float) -> "Effort":
        """Return so many times as much."""
        return self._replace(depth=self.depth * factor, least=round(self.least * factor))


class Visits(NamedTuple):
    """The lists that queries visit, nearest first.

    lists   [queries, most]  int64; -1 where a query visits fewer than another
    scores  [queries, most]  float32, inner products with the lists' centres
    """

    lists: NDArray[np.int64]
    scores: Floats


class Look(NamedTuple):
    """How far a query looks for what lies so deep.

    depth      so many times as deep as usual, from 1 on
    reach      a list is visited where what is sought is expected to be at least e ** reach
               times as dense as in the whole catalogue
    steepness  it is expected e times as dense for each 1 / steepness that a centre scores more;
               None in bundles from before: see `Centres._floors_of_before`
    """

    depth: float
    reach: float
    steepness: float | None


@dataclass(frozen=True)
class Centres:
    """The centres of lists, and how far from them a query looks.

    turned  [dim, lists]  the centres, a column each: BLAS is done sooner so
    shares  [lists]  of all rows, how many stand in each
    looks   by depth, ascending
    """

    turned: Floats
    shares: Floats
    looks: Sequence[Look]

    @classmethod
    def of(cls, vectors: Floats, sizes: NDArray[np.int64], looks: Sequence[Look]) -> Self:
        """Let queries look so far among these centres [lists, dim].

        sizes  [lists]  how many rows stand in each
        looks  by depth, ascending
        """
        return cls(np.ascontiguousarray(vectors.T), shares_of(sizes), looks)

    def among(self, lists: NDArray[np.integer], sizes: NDArray[np.int64]) -> Self:
        """Return the same for some of the lists, that hold so many rows."""
        return replace(
            self,
            turned=np.ascontiguousarray(self.turned[:, lists]),
            shares=shares_of(sizes),
        )

    def look_at(self, depth: float) -> Look:
        """Return how far to look for something so deep, by the logarithm of the depth.

        Beyond the deepest that was tuned so many times less dense is enough, as it is deeper.
        """
        first, last = self.looks[0], self.looks[-1]
        if depth <= first.depth:
            return first
        if depth > last.depth and last.steepness is not None:
            return last._replace(depth=depth, reach=last.reach - math.log(depth / last.depth))
        if first is last:
            return first
        after = min(bisect_left(self.looks, (depth,)), len(self.looks) - 1)
        near, far = self.looks[after - 1], self.looks[after]
        share = math.log(depth / near.depth) / math.log(far.depth / near.depth)
        reach = near.reach + (far.reach - near.reach) * share
        if near.steepness is None or far.steepness is None:
            return Look(depth, reach, None)
        return Look(depth, reach, near.steepness + (far.steepness - near.steepness) * share)

    @cached_property
    def _middle(self) -> Floats:
        middle: Floats = np.ascontiguousarray(self.turned.T).mean(axis=0)
        return middle

    def near(self, queries: Floats, effort: Effort) -> Visits:
        """Choose the lists of each query [queries, dim]."""
        scores = self._scores(queries)
        floors = self._floors(queries, scores, effort.depth)
        if effort.least > 1:
            floors = np.minimum(floors, [lowest_of(own, effort.least) for own in scores])
        is_near = scores >= floors[:, np.newaxis]
        chosen, most = Chosen.of(is_near), effort.most or scores.shape[1]
        if chosen.counts.min() == 0 or chosen.counts.max() > most:
            _bound(scores, is_near, chosen.counts, most)
            chosen = Chosen.of(is_near)
        return chosen.in_order(scores)

    def _scores(self, queries: Floats) -> Floats:
        """Return inner products [queries, lists], the same whatever queries stand beside.

        A single query is multiplied as two: for one, BLAS adds up in another order.
        """
        several = queries if len(queries) > 1 else queries.repeat(2, axis=0)
        scores: Floats = (several @ self.turned)[: len(queries)]
        return scores

    def _floors(self, queries: Floats, scores: Floats, depth: float) -> Floats:
        """Return the score from which on a list is visited; [queries]."""
        if math.isinf(depth):
            return np.full(len(queries), -np.inf, dtype=np.float32)  # everywhere
        _, reach, steepness = self.look_at(depth)
        if steepness is None:
            return self._floors_of_before(queries, scores, reach)
        mean = mean_density(densities_by(scores, steepness), self.shares)
        floors = (np.log(mean) + np.float32(reach)) / np.float32(steepness)
        return np.asarray(floors, dtype=np.float32)

    def _floors_of_before(self, queries: Floats, scores: Floats, reach: float) -> Floats:
        """Return them as far from the mean of all centres (0) to the nearest one (1)."""
        middle = np.einsum("nd,d->n", queries, self._middle)
        best = scores.max(axis=1)
        floors: Floats = np.minimum(middle + np.float32(reach) * (best - middle), best)
        return floors


def shares_of(sizes: NDArray[np.int64]) -> Floats:
    """Return of all rows how many stand in each list."""
    return np.asarray(sizes / max(1, sizes.sum()), dtype=np.float32)


def densities_by(scores: Floats, steepness: float) -> Floats:
    """Return how dense what is sought is in lists, but for a factor, by the centres' scores."""
    densities: Floats = np.exp(np.float32(steepness) * scores)
    return densities


def mean_density(densities: Floats, shares: Floats) -> Floats:
    """Return how dense it is in the catalogue at large; [queries].

    densities  [queries, lists]
    shares     [lists]
    """
    mean: Floats = np.vecdot(densities, shares)
    return mean


def lowest_of(scores: Floats, count: int) -> np.float32:
    """Return about the lowest of the best `count` scores; of many, some are looked at."""
    step = max(1, min(count // SAMPLED, MOST_LEFT_OUT))
    some = scores[::step]
    place = max(0, len(some) - -(-count // step))
    lowest: np.float32 = np.partition(some, place)[place]
    return lowest


class Chosen(NamedTuple):
    """The lists that queries visit, query by query.

    queries, lists  [visits]   the query, and the list
    counts          [queries]  how many lists each visits
    """

    queries: NDArray[np.int64]
    lists: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, is_near: NDArray[np.bool_]) -> Self:
        """Read which lists are near which query; [queries, lists]."""
        places = np.flatnonzero(is_near)  # of two dimensions at once: many times as fast
        queries, lists = np.divmod(places, is_near.shape[1])
        return cls(queries, lists, np.bincount(queries, minlength=len(is_near)))

    def in_order(self, scores: Floats) -> Visits:
        """Put them side by side for each query, nearest first."""
        own = scores[self.queries, self.lists]
        order = np.lexsort((-own, self.queries))
        ends = np.cumsum(self.counts)
        columns = np.arange(len(own)) - np.repeat(ends - self.counts, self.counts)
        visits = Visits(
            np.full((len(scores), self.counts.max()), -1, dtype=np.int64),
            np.zeros((len(scores), self.counts.max()), dtype=np.float32),
        )
        visits.lists[self.queries, columns] = self.lists[order]
        visits.scores[self.queries, columns] = own[order]
        return visits


def _bound(
    scores: Floats, is_near: NDArray[np.bool_], counts: NDArray[np.int64], most: int
) -> None:
    """Let each query visit the nearest list at least, and the nearest `most` at most."""
    none = np.flatnonzero(counts == 0)  # so those that are no number, of a faulty tower
    is_near[none, scores[none].argmax(axis=1)] = True
    for place in np.flatnonzero(counts > most).tolist():
        is_near[place] = False
        is_near[place, np.argpartition(scores[place], -most)[-most:]] = True
