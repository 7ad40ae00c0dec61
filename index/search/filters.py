"""LRU cache of compiled filters.

A wide filter gets an ANN index of its own, which takes tens of milliseconds or more to build:
then searching within it is as fast as searching everything. Why: docs/decisions/0004.
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

FilterKey = tuple[tuple[int, ...], ...]  # per attribute, the lists of its values, ascending

WIDE_SHARE = 0.7  # of the items: what keeps more is searched in the whole index
LEAST_BYTES = 16 << 20  # that compiled filters may take; beyond, as much as the index itself
OVERHEAD_BYTES = 1_024  # of a compiled filter, whatever it holds


@dataclass(frozen=True)
class CompiledFilter:
    """The only rows that a search may return.

    Attributes:
        allowed: as a bitmap.
        rows: ascending, where they are few; else None.
        index: an index over these rows, and perhaps others, or the whole one weighted by them;
            None: the whole index serves.
    """

    allowed: RowSet
    rows: Rows | None = None
    index: ItemIndex | None = None

    @property
    def size_bytes(self) -> int:
        """Return about how much memory it takes."""
        rows_bytes = 0 if self.rows is None else int(self.rows.nbytes)
        index_bytes = self.index.size_bytes if self.index and self.is_filled else 0
        return OVERHEAD_BYTES + self.allowed.size_bytes + rows_bytes + index_bytes

    @property
    def is_filled(self) -> bool:
        """Return whether all that its own index holds is allowed."""
        return self.index is not None and self.index.count == self.allowed.count

    def within(self, allowed: RowSet) -> "CompiledFilter":
        """Return the part of it that is among these rows too."""
        rows = self.rows
        if rows is not None:
            rows = rows[allowed.contains(rows)]
        return CompiledFilter(self.allowed.intersection(allowed), rows, self.index)


class FilterCache:
    """Compiles the filters of one bundle; those unused for longest are dropped."""

    def __init__(self, bundle: Bundle, limits: Limits) -> None:
        self._bundle, self._limits = bundle, limits
        self._limit_bytes = max(LEAST_BYTES, bundle.index.size_bytes)
        self._kept: OrderedDict[FilterKey, CompiledFilter] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()
        self._list_of_row: Rows | None = None
        self._listing = threading.Lock()

    def parse(self, asked: Filter) -> tuple[FilterKey, dict[str, list[str]]]:
        """Return the key of a filter, and attribute -> values that no item has.

        Raises UnknownAttributeError if the bundle cannot be filtered so.
        """
        key, unknown = [], {}
        for attribute in sorted(asked):
            lists = self._lists_of(attribute, asked[attribute])
            key.append(tuple(sorted({one for one in lists if one >= 0})))
            if -1 in lists:
                values = zip(asked[attribute], lists, strict=True)
                unknown[attribute] = [value for value, one in values if one < 0]
        return tuple(key), unknown

    def is_quick(self, key: FilterKey) -> bool:
        """Return whether `get` takes no time: it is kept, or keeps too little for an index."""
        filters = self._bundle.filters
        if key in self._kept or filters is None or not self._bundle.index.can_narrow:
            return True
        counts = [sum(len(filters.list_of(one)) for one in lists) for lists in key]
        return min(counts) <= self._limits.few and sum(counts) <= self._limits.looked_up

    def get(self, key: FilterKey) -> CompiledFilter:
        """Return a compiled filter, compiled now where it is not kept."""
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
                f"filter: found the attribute {attribute!r}, bundle {bundle.version} can be "
                f"filtered by {', '.join(sorted(known)) or 'none'}; ask for one of these"
            )
        if bundle.filters is None:
            return [-1] * len(values)
        return bundle.filters.keys_of(attribute, values)

    def _keep(self, key: FilterKey, compiled: CompiledFilter) -> CompiledFilter:
        with self._lock:
            if key not in self._kept:  # another thread may have been faster
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
        if allowed.count <= self._limits.few:
            return CompiledFilter(allowed, allowed.rows())
        if not bundle.index.can_narrow:
            return CompiledFilter(allowed)
        rows, lists = allowed.rows(), self._lists_of_rows()
        if allowed.count > WIDE_SHARE * count:
            return CompiledFilter(allowed, index=bundle.index.reweighted(rows, lists))
        return CompiledFilter(allowed, index=bundle.index.narrowed(rows, bundle.vectors, lists))

    def _lists_of_rows(self) -> Rows:
        with self._listing:
            if self._list_of_row is None:
                self._list_of_row = self._bundle.index.lists_of_rows()
            return self._list_of_row


def allowed_rows(filters: Filters, key: FilterKey, item_count: int) -> RowSet:
    """Return the rows that have any of an attribute's values, for all attributes."""
    allowed: RowSet | None = None
    for lists in key:
        rows = [NO_ROWS, *(filters.list_of(one) for one in lists)]
        own = RowSet.from_rows(np.concatenate(rows), item_count)
        allowed = own if allowed is None else allowed.intersection(own)
    assert allowed is not None  # a query without a filter has no key
    return allowed
