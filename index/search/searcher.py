"""ANN search with exact scores: as many candidates as are eligible, the best first.

From cheap to expensive: a few rows are compared one by one; else the index is searched, more of
it where that was not enough; at last every eligible row is compared. Which of them a query
takes depends neither on load nor on the queries beside it: it gets the same candidates each
time, but for items of equal scores.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.ann.index import ItemIndex
from index.ann.probing import (
    LIMITS,
    MAX_FILTER_DEPTH,
    NEARLY_ALL,
    TUNED_COUNT,
    Limits,
    SearchEffort,
    effort_for,
    slack,
)
from index.ann.rescore import Found, best_by, best_of, best_of_each
from index.arrays import Floats, Rows
from index.bitmap import RowSet
from index.search.filters import CompiledFilter
from index.search.query import SearchResult

DEEPER = (4, math.inf)  # times, where too few were found
PAST_MANY = 1.3  # times as deep: what is left lies behind what is excluded
EXCLUDED_ALIKE = 64  # who excludes many more than others would make all fetch as many

GroupKey = tuple[int, ...]  # of queries that may be searched together
Plan = tuple[
    ItemIndex, SearchEffort, RowSet | None
]  # which index, how deep, the only rows looked at


@dataclass(frozen=True)
class Searcher:
    """Searches one bundle."""

    index: ItemIndex
    vectors: Floats
    limits: Limits = LIMITS

    def group_key(self, result: SearchResult) -> GroupKey:
        """Return what queries must share, besides their filter, to be searched together."""
        count = len(result.excluded)
        is_long = count > self.limits.many_excluded
        return is_long, max(result.k, TUNED_COUNT), count // EXCLUDED_ALIKE

    def search(
        self,
        results: Sequence[SearchResult],
        compiled: CompiledFilter | None = None,
        is_bounded: bool = False,
    ) -> None:
        """Complete results of one kind, with one search of the index.

        Args:
            results: encoded queries.
            compiled: the only rows that may be returned; None: all.
            is_bounded: leave those incomplete that would take long.
        """
        if compiled is not None and compiled.rows is not None:
            for one in results:
                self._rank(one, without(compiled.rows, np.sort(one.excluded)))
        elif len(results[0].excluded) > self.limits.many_excluded:
            for one in results:
                self._search_past(one, compiled)
        else:
            queries = np.stack([vector_of(one) for one in results])
            wanted = [one.k + slack(one.k) for one in results]
            excluded = [one.excluded for one in results]
            fetched = [n + len(own) for n, own in zip(wanted, excluded, strict=True)]
            index, effort, allowed = self._plan(max(one.k for one in results), compiled)
            near = index.search(queries, min(max(fetched), index.count), effort, allowed)
            rows = rows_to_rescore(near.rows, near.scores, excluded, (wanted, fetched), compiled)
            best = best_of_each(self.vectors, queries, rows, [one.k for one in results])
            for one, found in zip(results, best, strict=True):
                one.rows, one.scores = found
        for one in results:
            one.is_complete = len(one.rows) >= one.k
            if not one.is_complete:
                self._complete(one, compiled, is_bounded)

    def _search_past(self, result: SearchResult, compiled: CompiledFilter | None) -> None:
        """Search for a query that excludes very many: the more are in the way, the deeper."""
        query, wanted = vector_of(result)[np.newaxis], result.k + slack(result.k)
        index, effort, allowed = self._plan(math.ceil(result.k * PAST_MANY), compiled)
        found = found_rows(index.search(query, min(wanted, index.count), effort, allowed).rows)
        rest = without(found, np.sort(result.excluded))
        if compiled is not None:
            rest = rest[compiled.allowed.contains(rest)]
        if len(rest) < result.k:
            deeper = effort.times(len(found) / max(1, len(rest)))
            eligible = self._eligible(result, compiled)
            rest = found_rows(index.search(query, min(wanted, index.count), deeper, eligible).rows)
        self._rank(result, rest)

    def _complete(
        self, result: SearchResult, compiled: CompiledFilter | None, is_bounded: bool
    ) -> None:
        """Find more where the index found too few."""
        eligible = self._eligible(result, compiled)
        wanted = min(result.k, eligible.count)
        result.is_complete = len(result.rows) >= wanted
        if not result.is_complete and eligible.count <= self.limits.few:
            self._rank(result, eligible.rows())
            result.is_complete = True
        if result.is_complete:
            return
        query, count = vector_of(result), min(result.k + slack(result.k), self.index.count)
        tried = effort_for(result.k, 1.0, self.index.rows_per_list, self.limits)
        for factor in DEEPER:
            near = self.index.search(query[np.newaxis], count, tried.times(factor), eligible)
            rows = found_rows(near.rows)
            if len(rows) >= wanted:
                self._rank(result, rows)
                result.is_complete = True
                return
        if not is_bounded:
            result.rows, result.scores = best_of(self.vectors, eligible, query, result.k)
            result.is_complete = True

    def _plan(self, count: int, compiled: CompiledFilter | None) -> Plan:
        """Choose the index for a filter, and how deep to search it."""
        index, share, allowed = self.index, 1.0, None
        if compiled is not None:
            share = max(1, compiled.allowed.count) / index.count
            index = compiled.index or index
            if share < NEARLY_ALL and not compiled.is_filled:  # else dropping is cheaper
                allowed = compiled.allowed
        effort = effort_for(count, share, index.rows_per_list, self.limits)
        if index is self.index and allowed is not None:  # how evenly it leaves out is not known
            effort = effort.times(MAX_FILTER_DEPTH)
        return index, effort, allowed

    def _eligible(self, result: SearchResult, compiled: CompiledFilter | None) -> RowSet:
        if compiled is not None:
            return compiled.allowed.without(result.excluded)
        return RowSet.from_rows(result.excluded, len(self.vectors)).complement()

    def _rank(self, result: SearchResult, rows: Rows) -> None:
        """Keep the best of some rows, by exact score."""
        queries = vector_of(result)[np.newaxis]
        found: Found
        (found,) = best_of_each(self.vectors, queries, rows[np.newaxis], [result.k])
        result.rows, result.scores = found


def vector_of(result: SearchResult) -> Floats:
    """Return the query vector of a result that has one."""
    assert result.vector is not None  # popular items are returned for the others
    return result.vector


def rows_to_rescore(
    rows: Rows,
    scores: Floats,
    excluded: Sequence[Rows],
    counts: tuple[Sequence[int], Sequence[int]],
    compiled: CompiledFilter | None,
) -> Rows:
    """Return the rows worth an exact score; [queries, most], -1 where there are fewer.

    The same ones whatever is searched beside them, but for rows of equal rounded scores.

    Args:
        rows: [queries, fetched] as the index found them; excluded ones become -1.
        counts: how many each query wants, and with as many more as it excludes.
    """
    wanted, fetched = counts
    if compiled is None:
        drop_excluded(rows, excluded)
        return best_by(rows, scores, wanted)
    rows = best_by(rows, scores, fetched)  # how many of them may not be is not known
    drop_excluded(rows, excluded)
    rows[~compiled.allowed.contains(rows)] = -1
    return rows


def found_rows(rows: Rows) -> Rows:
    """Return what the index found for its only query."""
    return rows[rows >= 0]


def without(rows: Rows, excluded: Rows) -> Rows:
    """Return the rows that are not among the excluded, which ascend."""
    if not len(excluded):
        return rows
    places = np.searchsorted(excluded, rows)
    is_kept: NDArray[np.bool_] = excluded.take(places, mode="clip") != rows
    return rows[is_kept]


def drop_excluded(rows: Rows, excluded: Sequence[Rows]) -> None:
    """Replace the rows that a query excludes by -1.

    Args:
        rows: [queries, most].
        excluded: rows of each query, in any order.
    """
    barred = np.concatenate(excluded).astype(np.int64)
    if not len(barred):
        return
    queries = np.arange(len(excluded), dtype=np.int64) << 32
    barred += queries.repeat([len(one) for one in excluded])
    barred.sort()
    keys = rows + queries[:, np.newaxis]
    rows[barred.take(np.searchsorted(barred, keys), mode="clip") == keys] = -1
