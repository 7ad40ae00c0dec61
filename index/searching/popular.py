"""The popular items: the answer where there is nothing to search with."""

import numpy as np
from numpy.typing import NDArray

from index.arrays import Rows
from index.searching.scope import NO_ROWS, Scope
from index.searching.search import without

CHUNK = 8_192  # rows looked at in one step


class Popular:
    """Items by their training positives, most first, then by row."""

    def __init__(self, counts: NDArray[np.int64]) -> None:
        self._counts = counts
        self._rows = np.argsort(-counts, kind="stable").astype(np.int32)

    def find(self, count: int, excluded: Rows, scope: Scope | None) -> Rows:
        """Return the first `count` that may be returned.

        excluded  rows that must not be, in any order
        scope     the only rows that may be; None: all
        """
        excluded = np.sort(excluded)
        if scope is not None and scope.listed is not None:
            rows = without(scope.listed, excluded)
            return rows[np.argsort(-self._counts[rows], kind="stable")][:count]
        found, step = NO_ROWS, count + len(excluded)
        for first in range(0, len(self._rows), max(step, CHUNK)):
            rows = without(self._rows[first : first + max(step, CHUNK)], excluded)
            if scope is not None:
                rows = rows[scope.allowed.contains(rows)]
            found = np.concatenate([found, rows])
            if len(found) >= count:
                break
        return found[:count]
