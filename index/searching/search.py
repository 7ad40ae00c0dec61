"""Search within a scope: the best rows for a query, by exact score, as many as there are.

From cheap to dear: a few rows are compared one by one; else the index is asked, more of it
where that was not enough; at last every eligible row is compared. Which of them a question
takes does not depend on how busy the service is: it gets the same answer each time.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.id_table import Rows
from index.item_index import Floats, ItemIndex
from index.searching.effort import (
    NEARLY_ALL,
    lists_for,
    lists_within,
    more_lists,
    most_lists,
    slack,
)
from index.searching.limits import LIMITS, Limits
from index.searching.row_set import RowSet
from index.searching.scope import Scope
from index.searching.scores import best_of, best_rows, exact_scores

Found = tuple[Rows, Floats]


@dataclass(frozen=True)
class Way:
    """How an index is asked: so many lists are visited, only some rows looked at."""

    index: ItemIndex
    lists: int | None
    allowed: RowSet | None

    def ask(self, query: Floats, count: int) -> Rows:
        """Return up to `count` rows."""
        return self.index.search(query, min(count, self.index.count), self.lists, self.allowed)


@dataclass(frozen=True)
class Search:
    """Finds rows of one bundle."""

    index: ItemIndex
    vectors: Floats
    limits: Limits = LIMITS

    def find(self, query: Floats, count: int, excluded: Rows, scope: Scope | None) -> Found:
        """Find the best `count` rows for a query [dim], ordered by exact score, then row.

        excluded  ascending item rows that must not be returned
        scope     the only rows that may be; None: all
        returns   rows and exact scores; fewer than `count` only where fewer are eligible
        """
        found = self.find_quickly(query, count, excluded, scope)
        if found is None:
            eligible = self._eligible(excluded, scope)
            found = best_of(self.vectors, eligible, query, count)
        return found

    def find_quickly(
        self, query: Floats, count: int, excluded: Rows, scope: Scope | None
    ) -> Found | None:
        """Find as `find` does; None if only comparing very many rows would tell."""
        if scope is not None and scope.listed is not None:
            rows = without(scope.listed, excluded)
            return self._best(query, count, rows)
        rows = self._near(query, count, excluded, scope)
        if len(rows) < count:
            more = self._more(query, count, rows, self._eligible(excluded, scope))
            if more is None:
                return None
            rows = more
        return self._best(query, count, rows)

    def _near(self, query: Floats, count: int, excluded: Rows, scope: Scope | None) -> Rows:
        """Ask the index as it was tuned; perhaps not enough."""
        way = self._way(count, scope)
        if len(excluded) > self.limits.many_excluded:
            return self._past(query, count, excluded, scope, way)
        rows = without(way.ask(query, count + len(excluded) + slack(count)), excluded)
        return rows if scope is None else rows[scope.allowed.contains(rows)]

    def _past(
        self, query: Floats, count: int, excluded: Rows, scope: Scope | None, way: Way
    ) -> Rows:
        """Ask past very many excluded rows: the more are in the way, the further."""
        found = way.ask(query, count + slack(count))
        rest = without(found, excluded)
        if scope is not None:
            rest = rest[scope.allowed.contains(rest)]
        if len(rest) >= count:
            return rest
        lists = None
        if way.lists is not None:
            wanted = round(way.lists * len(found) / max(1, len(rest)))
            lists = min(wanted, most_lists(way.index, self.limits))
        eligible = self._eligible(excluded, scope)
        return Way(way.index, lists, eligible).ask(query, count + slack(count))

    def _way(self, count: int, scope: Scope | None) -> Way:
        """Choose the index for a scope, and how much of it to visit."""
        index, limits = self.index, self.limits
        if scope is None:
            return Way(index, lists_for(index, count, 1.0, limits), None)
        if scope.narrow is not None:
            within = lists_within(index, scope.narrow, count, limits)
            return Way(scope.narrow, within, None if scope.is_filled else scope.allowed)
        share = max(1, scope.allowed.count) / index.count
        lists = lists_for(index, count, share, limits)
        is_dropping_cheaper = share >= NEARLY_ALL
        return Way(index, lists, None if is_dropping_cheaper else scope.allowed)

    def _more(self, query: Floats, count: int, rows: Rows, eligible: RowSet) -> Rows | None:
        """Find more where the index found too few; None if that takes long."""
        wanted = min(count, eligible.count)
        if len(rows) >= wanted:
            return rows
        if eligible.count <= self.limits.few:
            return eligible.rows()
        for lists in more_lists(self.index, self.limits):
            rows = Way(self.index, lists, eligible).ask(query, count + slack(count))
            if len(rows) >= wanted:
                return rows
        return None

    def _eligible(self, excluded: Rows, scope: Scope | None) -> RowSet:
        if scope is not None:
            return scope.allowed.without(excluded)
        return RowSet.from_rows(excluded, len(self.vectors)).complement()

    def _best(self, query: Floats, count: int, rows: Rows) -> Found:
        scores = exact_scores(self.vectors, rows, query)
        best = best_rows(rows, scores, count)
        return rows[best], scores[best]


def without(rows: Rows, excluded: Rows) -> Rows:
    """Return the rows that are not among the excluded, which ascend."""
    if not len(excluded):
        return rows
    places = np.searchsorted(excluded, rows)
    is_kept: NDArray[np.bool_] = excluded.take(places, mode="clip") != rows
    return rows[is_kept]
