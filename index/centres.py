"""Which lists of an index a query visits: those whose centres lie near it, by its own measure.

A query that lies close to one centre finds its neighbours in a few lists; one that lies between
many needs many. A fixed number is too many for the one and too few for the other.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SAMPLED, MOST_LEFT_OUT = (
    64,
    8,
)  # of so many scores the lowest is told well; every eighth at the least


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


@dataclass(frozen=True)
class Centres:
    """The centres of lists, and how far from the nearest one a query looks.

    turned   [dim, lists]  the centres, a column each: BLAS is done sooner so
    middle   [dim]  their mean
    depths   ascending: so many times as deep as usual, from 1 on
    reaches  for each depth. 1: only the nearest list is visited; 0: all that are nearer than
             the middle; between: those beyond so much of the way from there to the nearest
    """

    turned: Floats
    middle: Floats
    depths: tuple[float, ...]
    reaches: tuple[float, ...]

    @classmethod
    def of(cls, vectors: Floats, reaches: Mapping[float, float]) -> Self:
        """Let queries reach so far among these centres [lists, dim]; depth -> reach."""
        depths = tuple(sorted(reaches))
        turned, middle = np.ascontiguousarray(vectors.T), vectors.mean(axis=0)
        return cls(turned, middle, depths, tuple(reaches[depth] for depth in depths))

    def reach_at(self, depth: float) -> float:
        """Return how far to look for something so deep, by the logarithm of the depth."""
        if math.isinf(depth):
            return -math.inf  # everywhere
        if depth <= self.depths[0] or len(self.depths) == 1:
            return self.reaches[0]
        last = min(bisect_left(self.depths, depth), len(self.depths) - 1)
        (low, high), (near, far) = (
            self.depths[last - 1 : last + 1],
            self.reaches[last - 1 : last + 1],
        )
        return near + (far - near) * math.log(depth / low) / math.log(high / low)

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
        middle = np.einsum("nd,d->n", queries, self.middle)
        best = scores.max(axis=1)
        reach = self.reach_at(depth)
        if math.isinf(reach):
            return np.full(len(queries), reach, dtype=np.float32)
        floors: Floats = np.minimum(middle + np.float32(reach) * (best - middle), best)
        return floors


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
    """Let each query visit a list at least, and the nearest `most` at most."""
    is_near[counts == 0, 0] = True  # a query that is no number, of a faulty tower
    for place in np.flatnonzero(counts > most).tolist():
        is_near[place] = False
        is_near[place, np.argpartition(scores[place], -most)[-most:]] = True
