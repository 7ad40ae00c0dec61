"""ANN search with exact scores: as many candidates as are eligible, the best first.

From cheap to expensive: few eligible rows are scored exhaustively; otherwise the index is
searched, then searched deeper if candidates are missing; at last all eligible rows are scored. The
method depends neither on load nor on the rest of the batch, so a query has the same candidates
each time, except for items of equal score.
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
from index.ann.rescore import RankedRows, rank_eligible, rank_rows, top_by_score
from index.arrays import Floats, Rows
from index.bitmap import RowSet
from index.search.filters import CompiledFilter
from index.search.query import SearchResult

DEEPER = (4, math.inf)  # depth factors of the retries
EXCLUSION_DEPTH = 1.3  # depth factor: excluded items rank before the candidates
EXCLUDED_BUCKET = 64  # queries are grouped by exclusion count: all of a group fetch as many rows

GroupKey = tuple[int, ...]
Plan = tuple[ItemIndex, SearchEffort, RowSet | None]  # index, effort, rows it may return


@dataclass(frozen=True)
class Searcher:
    """Searches the index of one bundle."""

    index: ItemIndex
    vectors: Floats
    limits: Limits = LIMITS

    def group_key(self, result: SearchResult) -> GroupKey:
        """Return a key: queries with equal key and filter are searched together."""
        count = len(result.excluded)
        is_long = count > self.limits.max_dropped_rows
        return is_long, max(result.k, TUNED_COUNT), count // EXCLUDED_BUCKET

    def search(
        self,
        results: Sequence[SearchResult],
        compiled: CompiledFilter | None = None,
        is_bounded: bool = False,
    ) -> None:
        """Complete results that have equal group keys, with one search of the index.

        Args:
            results: Results of encoded queries.
            compiled: Filter; None: all rows.
            is_bounded: Skip expensive work and leave results incomplete instead.
        """
        if compiled is not None and compiled.rows is not None:
            for result in results:
                self._rank(result, exclude_rows(compiled.rows, np.sort(result.excluded)))
        elif len(results[0].excluded) > self.limits.max_dropped_rows:
            for result in results:
                self._search_deeper(result, compiled)
        else:
            queries = np.stack([vector_of(result) for result in results])
            needed = [result.k + slack(result.k) for result in results]
            excluded = [result.excluded for result in results]
            fetched = [n + len(own) for n, own in zip(needed, excluded, strict=True)]
            index, effort, allowed = self._plan(max(result.k for result in results), compiled)
            near = index.search(queries, min(max(fetched), index.num_items), effort, allowed)
            rows = rows_to_rescore(near.rows, near.scores, excluded, (needed, fetched), compiled)
            ranked = rank_rows(self.vectors, queries, rows, [result.k for result in results])
            for result, best in zip(results, ranked, strict=True):
                result.rows, result.scores = best
        for result in results:
            result.is_complete = len(result.rows) >= result.k
            if not result.is_complete:
                self._complete(result, compiled, is_bounded)

    def _search_deeper(self, result: SearchResult, compiled: CompiledFilter | None) -> None:
        """Search for a query with many exclusions: deeper if they crowd out candidates."""
        query, count = vector_of(result)[np.newaxis], result.k + slack(result.k)
        index, effort, allowed = self._plan(math.ceil(result.k * EXCLUSION_DEPTH), compiled)
        fetched = valid_rows(index.search(query, min(count, index.num_items), effort, allowed).rows)
        rest = exclude_rows(fetched, np.sort(result.excluded))
        if compiled is not None:
            rest = rest[compiled.allowed.contains(rest)]
        if len(rest) < result.k:
            deeper = effort.scale(len(fetched) / max(1, len(rest)))
            eligible = self._eligible(result, compiled)
            rest = valid_rows(
                index.search(query, min(count, index.num_items), deeper, eligible).rows
            )
        self._rank(result, rest)

    def _complete(
        self, result: SearchResult, compiled: CompiledFilter | None, is_bounded: bool
    ) -> None:
        """Search for the missing candidates of a result."""
        eligible = self._eligible(result, compiled)
        num_candidates = min(result.k, eligible.count)
        result.is_complete = len(result.rows) >= num_candidates
        if not result.is_complete and eligible.count <= self.limits.max_scanned_rows:
            self._rank(result, eligible.rows())
            result.is_complete = True
        if result.is_complete:
            return
        query, count = vector_of(result), min(result.k + slack(result.k), self.index.num_items)
        tried = effort_for(result.k, 1.0, self.index.rows_per_list, self.limits)
        for factor in DEEPER:
            near = self.index.search(query[np.newaxis], count, tried.scale(factor), eligible)
            rows = valid_rows(near.rows)
            if len(rows) >= num_candidates:
                self._rank(result, rows)
                result.is_complete = True
                return
        if not is_bounded:
            result.rows, result.scores = rank_eligible(self.vectors, eligible, query, result.k)
            result.is_complete = True

    def _plan(self, count: int, compiled: CompiledFilter | None) -> Plan:
        """Choose the index and the effort for a filter."""
        index, share, allowed = self.index, 1.0, None
        if compiled is not None:
            share = max(1, compiled.allowed.count) / index.num_items
            index = compiled.index or index
            if share < NEARLY_ALL and not compiled.has_exact_index:  # else dropping rows is cheaper
                allowed = compiled.allowed
        effort = effort_for(count, share, index.rows_per_list, self.limits)
        if index is self.index and allowed is not None:  # its effect on each list is unknown
            effort = effort.scale(MAX_FILTER_DEPTH)
        return index, effort, allowed

    def _eligible(self, result: SearchResult, compiled: CompiledFilter | None) -> RowSet:
        if compiled is not None:
            return compiled.allowed.difference(result.excluded)
        return RowSet.from_rows(result.excluded, len(self.vectors)).complement()

    def _rank(self, result: SearchResult, rows: Rows) -> None:
        """Set the candidates to the best of some rows by exact score."""
        queries = vector_of(result)[np.newaxis]
        best: RankedRows
        (best,) = rank_rows(self.vectors, queries, rows[np.newaxis], [result.k])
        result.rows, result.scores = best


def vector_of(result: SearchResult) -> Floats:
    """Return the query vector of an encoded query."""
    assert result.vector is not None  # other queries fall back to popular items
    return result.vector


def rows_to_rescore(
    rows: Rows,
    scores: Floats,
    excluded: Sequence[Rows],
    counts: tuple[Sequence[int], Sequence[int]],
    compiled: CompiledFilter | None,
) -> Rows:
    """Select the rows to score exactly; [queries, n], padded with -1.

    The selection does not depend on the batch, except for rows of equal rounded score.

    Args:
        rows: [queries, fetched], search results; excluded rows are set to -1 in place.
        scores: [queries, fetched], scores of the index.
        excluded: Excluded rows of each query.
        counts: Number of rows needed per query, without and with its exclusions.
        compiled: Filter; None: all rows.
    """
    needed, fetched = counts
    if compiled is None:
        mask_excluded(rows, excluded)
        return top_by_score(rows, scores, needed)
    rows = top_by_score(rows, scores, fetched)  # the number of filtered rows is unknown
    mask_excluded(rows, excluded)
    rows[~compiled.allowed.contains(rows)] = -1
    return rows


def valid_rows(rows: Rows) -> Rows:
    """Return the rows of a single query without padding."""
    return rows[rows >= 0]


def exclude_rows(rows: Rows, excluded: Rows) -> Rows:
    """Return the rows that are not in `excluded` (ascending)."""
    if not len(excluded):
        return rows
    positions = np.searchsorted(excluded, rows)
    is_kept: NDArray[np.bool_] = excluded.take(positions, mode="clip") != rows
    return rows[is_kept]


def mask_excluded(rows: Rows, excluded: Sequence[Rows]) -> None:
    """Set the excluded rows of each query to -1, in place.

    Args:
        rows: [queries, n].
        excluded: Excluded rows of each query, in any order.
    """
    excluded_keys = np.concatenate(excluded).astype(np.int64)
    if not len(excluded_keys):
        return
    queries = np.arange(len(excluded), dtype=np.int64) << 32
    excluded_keys += queries.repeat([len(query_rows) for query_rows in excluded])
    excluded_keys.sort()
    keys = rows + queries[:, np.newaxis]
    rows[excluded_keys.take(np.searchsorted(excluded_keys, keys), mode="clip") == keys] = -1
