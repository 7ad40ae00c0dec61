"""Popularity fallback: candidates for queries without a usable history."""

import numpy as np
from numpy.typing import NDArray

from index.arrays import Rows
from index.search.filters import CompiledFilter
from index.search.query import NO_ROWS
from index.search.searcher import without

CHUNK = 8_192  # rows looked at in one step


class PopularItems:
    """Items by their training positives, most first, then by row."""

    def __init__(self, counts: NDArray[np.int64]) -> None:
        self._counts = counts
        self._rows = np.argsort(-counts, kind="stable").astype(np.int32)

    def top(self, count: int, excluded: Rows, compiled: CompiledFilter | None) -> Rows:
        """Return the most popular rows that may be returned.

        Args:
            excluded: rows never to return, in any order.
            compiled: the only rows that may be returned; None: all.
        """
        excluded = np.sort(excluded)
        if compiled is not None and compiled.rows is not None:
            rows = without(compiled.rows, excluded)
            return rows[np.argsort(-self._counts[rows], kind="stable")][:count]
        found, step = NO_ROWS, max(count + len(excluded), CHUNK)
        for first in range(0, len(self._rows), step):
            rows = without(self._rows[first : first + step], excluded)
            if compiled is not None:
                rows = rows[compiled.allowed.contains(rows)]
            found = np.concatenate([found, rows])
            if len(found) >= count:
                break
        return found[:count]
