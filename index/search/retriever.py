"""Retrieval: from queries to candidates, online and offline."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from index.ann.probing import LIMITS, Limits
from index.arrays import Rows
from index.bitmap import RowSet
from index.bundle.reader import Bundle
from index.errors import UnknownItemError
from index.search.filters import CompiledFilter, FilterCache, FilterKey
from index.search.query import NO_ROWS, Fallback, Filter, Query, SearchResult
from index.search.searcher import GroupKey, Searcher, exclude_rows

CHUNK = 8_192  # popular rows per step
LOOKUP_COST = 14_000  # vector elements scored in the time of one id lookup

Observe = Callable[[str, float], None]  # stage ("encode" or "search") and its seconds


class Retriever:
    """Retrieves candidates from one bundle.

    A single query is a batch of one. A batch is encoded in one call, and queries with the same
    filter are searched in one call. Each query has the same candidates as alone.

    Attributes:
        base_cost: Fixed cost of a query, in id lookups.
    """

    def __init__(self, bundle: Bundle, limits: Limits = LIMITS) -> None:
        self.bundle = bundle
        index = bundle.index
        self.base_cost = index.num_items * index.dim // LOOKUP_COST if index.nprobe is None else 0
        self._searcher = Searcher(bundle.index, bundle.vectors, limits)
        self._popular = PopularItems(bundle.counts)
        self._filters = FilterCache(bundle, limits)
        self._allowed: tuple[RowSet, CompiledFilter] | None = (
            None  # latest denylist and its complement
        )

    def retrieve(
        self,
        queries: Sequence[Query],
        denied: RowSet | None = None,
        *,
        is_bounded: bool = False,
        observe: Observe = lambda _stage, _seconds: None,
    ) -> list[SearchResult]:
        """Return `k` candidates for each query, or all eligible items if there are fewer.

        Args:
            queries: Queries, retrieved as one batch.
            denied: Rows that are never returned.
            is_bounded: Skip expensive work (exhaustive scoring of many rows, compiling a wide
                filter) and return incomplete results instead.
            observe: Called with the duration of each stage.

        Raises:
            UnknownItemError: The bundle does not have the item of a query.
            UnknownAttributeError: The bundle does not have an attribute of a filter.
        """
        begin = time.perf_counter()
        filters = self._parse_filters([query.filter for query in queries])
        results = self.encode(queries)
        encoded = time.perf_counter()
        observe("encode", encoded - begin)
        groups: dict[tuple[FilterKey, GroupKey | None], list[SearchResult]] = {}
        for result, (key, unknown_values) in zip(results, filters, strict=True):
            result.unknown_values = unknown_values
            if not (is_bounded and key) or self._filters.is_quick(key):
                kind = self._searcher.group_key(result) if result.fallback is None else None
                groups.setdefault((key, kind), []).append(result)
        for (key, kind), group in groups.items():
            compiled = self._allowed_by(key, denied)
            if kind is None:
                self._fall_back(group, compiled)
            else:
                self._searcher.search(group, compiled, is_bounded)
        observe("search", time.perf_counter() - encoded)
        return results

    def encode(self, queries: Sequence[Query]) -> list[SearchResult]:
        """Look up the ids of queries and encode them; the results have no candidates yet.

        Raises:
            UnknownItemError: The bundle does not have the item of a query.
        """
        count = len(queries)
        rows = self.bundle.items.rows_of_each(
            [_ids_of(query) for query in queries] + [query.exclude for query in queries]
        )
        results, histories, encoded = [], [], []
        for query, own, excluded in zip(queries, rows[:count], rows[count:], strict=True):
            result = SearchResult(self.bundle.items, query.k)
            results.append(result)
            if query.item_id is not None:
                history = self._read_item(query, own, result)
            else:
                history = self._read_history(query, own, result)
                if result.fallback is None:
                    histories.append(history)
                    encoded.append(result)
            seen = history if query.exclude_seen or query.item_id is not None else NO_ROWS
            if len(excluded):
                seen = np.concatenate([excluded[excluded >= 0], seen])
            result.excluded = seen
        if encoded:
            encoder, vectors = self.bundle.user_encoder, self.bundle.vectors
            vectors = encoder.encode_histories(vectors, histories)
            for result, vector in zip(encoded, vectors, strict=True):
                result.vector = vector
        return results

    def _read_item(self, query: Query, rows: Rows, result: SearchResult) -> Rows:
        """Use the vector of the query's item as query vector."""
        if rows[0] < 0:
            raise UnknownItemError(
                f"item {query.item_id!r}: not in bundle {self.bundle.version}; "
                "expected an item of its catalogue; check the id"
            )
        result.vector = self.bundle.vectors[rows[0]]
        return rows

    def _read_history(self, query: Query, rows: Rows, result: SearchResult) -> Rows:
        """Return the known rows of a history; record unknown ids and the fallback reason.

        Args:
            query: Query for a user.
            rows: Rows of the query's history, -1 for unknown ids.
            result: Result of the query.
        """
        missing: Fallback = "empty_history"
        if query.history is None:
            stored = self._stored_history(query.user_id)
            if stored is None and query.user_id is not None:
                missing = "unknown_user"
            rows = NO_ROWS if stored is None else stored
        elif (rows < 0).any():
            result.unknown = [
                item_id for item_id, row in zip(query.history, rows, strict=True) if row < 0
            ]
            missing, rows = "no_known_items", rows[rows >= 0]
        result.fallback = None if len(rows) else missing
        return rows

    def _stored_history(self, user_id: str | None) -> Rows | None:
        if user_id is None or self.bundle.histories is None:
            return None
        return self.bundle.histories.get(user_id)

    def _parse_filters(
        self, filters: Sequence[Filter]
    ) -> list[tuple[FilterKey, dict[str, list[str]]]]:
        """Parse filters, equal ones once."""
        if not any(filters):
            return [((), {})] * len(filters)
        spelled = [
            tuple((name, *values) for name, values in filter_.items()) for filter_ in filters
        ]
        distinct = dict(zip(spelled, filters, strict=True))
        parsed = {key: self._filters.parse(filter_) for key, filter_ in distinct.items()}
        return [parsed[key] for key in spelled]

    def _allowed_by(self, key: FilterKey, denied: RowSet | None) -> CompiledFilter | None:
        """Return the filter without the denied rows; None: all rows."""
        compiled = self._filters.get(key) if key else None
        if denied is None:
            return compiled
        kept = self._allowed  # read once: another thread may use another denylist
        if kept is None or kept[0] is not denied:
            kept = self._allowed = (denied, CompiledFilter(denied.complement()))
        rest = kept[1]
        return rest if compiled is None else compiled.intersect(rest.allowed)

    def _fall_back(self, results: Sequence[SearchResult], compiled: CompiledFilter | None) -> None:
        for result in results:
            result.rows = self._popular.top(result.k, result.excluded, compiled)
            result.is_complete = True


def _ids_of(query: Query) -> Sequence[str]:
    return query.history or () if query.item_id is None else (query.item_id,)


class PopularItems:
    """Items by descending number of training positives, then by row."""

    def __init__(self, counts: NDArray[np.int64]) -> None:
        self._counts = counts
        self._rows = np.argsort(-counts, kind="stable").astype(np.int32)

    def top(self, count: int, excluded: Rows, compiled: CompiledFilter | None) -> Rows:
        """Return the most popular eligible rows.

        Args:
            count: Maximum number of rows.
            excluded: Rows that are not returned, in any order.
            compiled: Filter; None: all rows.
        """
        excluded = np.sort(excluded)
        if compiled is not None and compiled.rows is not None:
            rows = exclude_rows(compiled.rows, excluded)
            return rows[np.argsort(-self._counts[rows], kind="stable")][:count]
        popular, step = NO_ROWS, max(count + len(excluded), CHUNK)
        for first in range(0, len(self._rows), step):
            rows = exclude_rows(self._rows[first : first + step], excluded)
            if compiled is not None:
                rows = rows[compiled.allowed.contains(rows)]
            popular = np.concatenate([popular, rows])
            if len(popular) >= count:
                break
        return popular[:count]
