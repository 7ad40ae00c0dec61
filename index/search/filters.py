"""LRU cache of compiled filters.

A filter that keeps many items gets its own ANN index. It takes tens of milliseconds or more to
build; searches are then as fast as without a filter. See docs/decisions/0004.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.ann.index import ItemIndex
from index.ann.probing import Limits
from index.arrays import Rows
from index.bitmap import RowSet
from index.bundle.reader import Bundle
from index.errors import UnknownAttributeError
from index.metadata import Filters
from index.search.query import NO_ROWS, Filter

FilterKey = tuple[tuple[int, ...], ...]  # per attribute, its filter keys, ascending

WIDE_SHARE = 0.7  # filters that keep a larger share search the whole index
MIN_CACHE_BYTES = 16 << 20  # the cache may use this, or as much as the index if that is more
OVERHEAD_BYTES = 1_024  # fixed cost of a compiled filter


@dataclass(frozen=True)
class CompiledFilter:
    """Rows that a search may return.

    Attributes:
        allowed: The rows as a bitmap.
        rows: The rows, ascending, if they are few; else None.
        index: Index of a superset of these rows, or the whole index with their list weights;
            None: the whole index.
    """

    allowed: RowSet
    rows: Rows | None = None
    index: ItemIndex | None = None

    @property
    def size_bytes(self) -> int:
        """Approximate size in memory."""
        rows_bytes = 0 if self.rows is None else int(self.rows.nbytes)
        index_bytes = self.index.size_bytes if self.index and self.has_exact_index else 0
        return OVERHEAD_BYTES + self.allowed.size_bytes + rows_bytes + index_bytes

    @property
    def has_exact_index(self) -> bool:
        """Whether the filter's index holds allowed rows only."""
        return self.index is not None and self.index.num_items == self.allowed.count

    def intersect(self, allowed: RowSet) -> "CompiledFilter":
        """Return the filter restricted to `allowed`."""
        rows = self.rows
        if rows is not None:
            rows = rows[allowed.contains(rows)]
        return CompiledFilter(self.allowed.intersection(allowed), rows, self.index)


class FilterCache:
    """Compiles the filters of a bundle and keeps the most recently used."""

    def __init__(self, bundle: Bundle, limits: Limits) -> None:
        self._bundle, self._limits = bundle, limits
        self._limit_bytes = max(MIN_CACHE_BYTES, bundle.index.size_bytes)
        self._kept: OrderedDict[FilterKey, CompiledFilter] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()
        self._list_of_row: Rows | None = None
        self._listing = threading.Lock()

    def parse(self, filters: Filter) -> tuple[FilterKey, dict[str, list[str]]]:
        """Return the key of a filter, and attribute -> values without items.

        Raises:
            UnknownAttributeError: The bundle does not have a filter attribute.
        """
        key, unknown = [], {}
        for attribute in sorted(filters):
            lists = self._lists_of(attribute, filters[attribute])
            key.append(tuple(sorted({posting for posting in lists if posting >= 0})))
            if -1 in lists:
                values = zip(filters[attribute], lists, strict=True)
                unknown[attribute] = [value for value, posting in values if posting < 0]
        return tuple(key), unknown

    def is_quick(self, key: FilterKey) -> bool:
        """Return whether `get` is fast: the filter is cached or needs no index."""
        filters = self._bundle.filters
        if key in self._kept or filters is None or not self._bundle.index.can_build_subset:
            return True
        counts = [sum(len(filters.posting_of(posting)) for posting in lists) for lists in key]
        return (
            min(counts) <= self._limits.max_scanned_rows
            and sum(counts) <= self._limits.max_posting_rows
        )

    def get(self, key: FilterKey) -> CompiledFilter:
        """Return a compiled filter from the cache, or compile it."""
        with self._lock:
            compiled = self._kept.get(key)
            if compiled is not None:
                self._kept.move_to_end(key)
                return compiled
        return self._keep(key, self._compile(key))

    def _lists_of(self, attribute: str, values: Sequence[str]) -> list[int]:
        bundle = self._bundle
        known = bundle.manifest.filters
        if attribute not in known:
            raise UnknownAttributeError(
                f"filter: found attribute {attribute!r}; expected one of bundle {bundle.version}: "
                f"{', '.join(sorted(known)) or 'none'}; change the filter"
            )
        if bundle.filters is None:
            return [-1] * len(values)
        return bundle.filters.keys_of(attribute, values)

    def _keep(self, key: FilterKey, compiled: CompiledFilter) -> CompiledFilter:
        with self._lock:
            if key not in self._kept:  # another thread may have added it
                self._kept[key] = compiled
                self._kept_bytes += compiled.size_bytes
            while self._kept_bytes > self._limit_bytes and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._kept_bytes -= dropped.size_bytes
        return compiled

    def _compile(self, key: FilterKey) -> CompiledFilter:
        bundle, count = self._bundle, len(self._bundle.vectors)
        if bundle.filters is None:  # no item has any value
            return CompiledFilter(RowSet.from_rows(NO_ROWS, count), NO_ROWS)
        allowed = allowed_rows(bundle.filters, key, count)
        if allowed.count <= self._limits.max_scanned_rows:
            return CompiledFilter(allowed, allowed.rows())
        if not bundle.index.can_build_subset:
            return CompiledFilter(allowed)
        rows, lists = allowed.rows(), self._lists_of_rows()
        if allowed.count > WIDE_SHARE * count:
            return CompiledFilter(allowed, index=bundle.index.reweight(rows, lists))
        return CompiledFilter(allowed, index=bundle.index.build_subset(rows, bundle.vectors, lists))

    def _lists_of_rows(self) -> Rows:
        with self._listing:
            if self._list_of_row is None:
                self._list_of_row = self._bundle.index.lists_of_rows()
            return self._list_of_row


def allowed_rows(filters: Filters, key: FilterKey, item_count: int) -> RowSet:
    """Return the rows that match any value of each attribute."""
    allowed: RowSet | None = None
    for lists in key:
        rows = [NO_ROWS, *(filters.posting_of(posting) for posting in lists)]
        own = RowSet.from_rows(np.concatenate(rows), item_count)
        allowed = own if allowed is None else allowed.intersection(own)
    assert allowed is not None  # a query without a filter has no key
    return allowed
