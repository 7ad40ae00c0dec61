"""From queries to candidates. Online and offline results come from this file alone."""

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
from index.search.searcher import GroupKey, Searcher, without

CHUNK = 8_192  # popular rows looked at in one step
LOOKUP_COST = 14_000  # numbers of vectors compared in the time of one id looked up

Observe = Callable[[str, float], None]  # the stage, "encode" or "search", and its seconds


class Retriever:
    """Answers queries from one bundle.

    A single query is a batch of one: all are encoded in one call, and searched in one call
    where they are alike. Each gets the same candidates as alone.

    Attributes:
        base_cost: what any query takes, in ids that could be looked up meanwhile.
    """

    def __init__(self, bundle: Bundle, limits: Limits = LIMITS) -> None:
        self.bundle = bundle
        index = bundle.index
        self.base_cost = index.count * index.dim // LOOKUP_COST if index.nprobe is None else 0
        self._searcher = Searcher(bundle.index, bundle.vectors, limits)
        self._popular = PopularItems(bundle.counts)
        self._filters = FilterCache(bundle, limits)
        self._allowed: tuple[RowSet, CompiledFilter] | None = None  # denied last, all but that

    def retrieve(
        self,
        queries: Sequence[Query],
        denied: RowSet | None = None,
        *,
        is_bounded: bool = False,
        observe: Observe = lambda _stage, _seconds: None,
    ) -> list[SearchResult]:
        """Return up to `k` candidates for each query; fewer only where fewer are eligible.

        Args:
            denied: rows that are never returned.
            is_bounded: do nothing that takes long: comparing very many rows, or compiling a
                wide filter. Results that would need it are incomplete.
            observe: called with the duration of each stage.

        Raises UnknownItemError, UnknownAttributeError.
        """
        begin = time.perf_counter()
        filters = self._parse_filters([query.filter for query in queries])
        results = self.encode(queries)
        encoded = time.perf_counter()
        observe("encode", encoded - begin)
        groups: dict[tuple[FilterKey, GroupKey | None], list[SearchResult]] = {}
        for one, (key, unknown_values) in zip(results, filters, strict=True):
            one.unknown_values = unknown_values
            if not (is_bounded and key) or self._filters.is_quick(key):
                kind = self._searcher.group_key(one) if one.fallback is None else None
                groups.setdefault((key, kind), []).append(one)
        for (key, kind), group in groups.items():
            compiled = self._allowed_by(key, denied)
            if kind is None:
                self._fall_back(group, compiled)
            else:
                self._searcher.search(group, compiled, is_bounded)
        observe("search", time.perf_counter() - encoded)
        return results

    def encode(self, queries: Sequence[Query]) -> list[SearchResult]:
        """Look up and encode queries, without filters and without searching.

        Returns incomplete results: with their query vectors, or why there are none.

        Raises UnknownItemError.
        """
        count = len(queries)
        rows = self.bundle.items.rows_of_each(
            [_ids_of(one) for one in queries] + [one.exclude for one in queries]
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
        """Take the vector of the query's item."""
        if rows[0] < 0:
            raise UnknownItemError(
                f"item {query.item_id!r}: bundle {self.bundle.version} does not hold it; "
                "ask for an item of its catalogue"
            )
        result.vector = self.bundle.vectors[rows[0]]
        return rows

    def _read_history(self, query: Query, rows: Rows, result: SearchResult) -> Rows:
        """Return the known rows of a history; note what is unknown, or why none is usable.

        Args:
            rows: of the query's own history, -1 where unknown.
        """
        missing: Fallback = "empty_history"
        if query.history is None:
            stored = self._stored_history(query.user_id)
            if stored is None and query.user_id is not None:
                missing = "unknown_user"
            rows = NO_ROWS if stored is None else stored
        elif (rows < 0).any():
            result.unknown = [one for one, row in zip(query.history, rows, strict=True) if row < 0]
            missing, rows = "no_known_items", rows[rows >= 0]
        result.fallback = None if len(rows) else missing
        return rows

    def _stored_history(self, user_id: str | None) -> Rows | None:
        if user_id is None or self.bundle.histories is None:
            return None
        return self.bundle.histories.of(user_id)

    def _parse_filters(
        self, filters: Sequence[Filter]
    ) -> list[tuple[FilterKey, dict[str, list[str]]]]:
        """Parse filters; equal ones once, as many callers ask for the same."""
        if not any(filters):
            return [((), {})] * len(filters)
        spelled = [tuple((name, *values) for name, values in one.items()) for one in filters]
        distinct = dict(zip(spelled, filters, strict=True))
        parsed = {key: self._filters.parse(one) for key, one in distinct.items()}
        return [parsed[key] for key in spelled]

    def _allowed_by(self, key: FilterKey, denied: RowSet | None) -> CompiledFilter | None:
        """Return the rows that a filter keeps, without those denied; None: all rows."""
        compiled = self._filters.get(key) if key else None
        if denied is None:
            return compiled
        kept = self._allowed  # read once: another thread may have another denylist
        if kept is None or kept[0] is not denied:
            kept = self._allowed = (denied, CompiledFilter(denied.complement()))
        rest = kept[1]
        return rest if compiled is None else compiled.within(rest.allowed)

    def _fall_back(self, results: Sequence[SearchResult], compiled: CompiledFilter | None) -> None:
        for one in results:
            one.rows = self._popular.top(one.k, one.excluded, compiled)
            one.is_complete = True


def _ids_of(query: Query) -> Sequence[str]:
    return query.history or () if query.item_id is None else (query.item_id,)


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
