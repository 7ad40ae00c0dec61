"""The scopes of a bundle's filters: each made once, those not used for longest forgotten.

A wide filter gets an index of its own, which takes tens of milliseconds or more to make: then
searching within it is no slower than searching everything. Why: docs/decisions/0004.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from index.ann.probing import Limits
from index.arrays import Rows
from index.bitmap import RowSet
from index.bundle.reader import Bundle
from index.errors import UnknownAttributeError
from index.searching.question import Filter
from index.searching.scope import NO_ROWS, Key, Scope, scope_of

WIDE_SHARE = 0.7  # of the items: what keeps more is searched in the whole index
LEAST_BYTES = 16 << 20  # that scopes may take; beyond, as much as the index itself


class Scopes:
    """What the filters of one bundle keep."""

    def __init__(self, bundle: Bundle, limits: Limits) -> None:
        self._bundle, self._limits = bundle, limits
        self._limit_bytes = max(LEAST_BYTES, bundle.index.size_bytes)
        self._kept: OrderedDict[Key, Scope] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()
        self._list_of_row: Rows | None = None
        self._listing = threading.Lock()

    def read(self, asked: Filter) -> tuple[Key, dict[str, list[str]]]:
        """Return what a filter is known by, and attribute -> values that no item has.

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

    def find(self, key: Key) -> Scope:
        """Return the scope of a filter, made where it is not kept."""
        scope = self._get(key)
        return scope if scope is not None else self._keep(key, self._make(key))

    def find_quickly(self, key: Key) -> Scope | None:
        """Return the scope of a filter; None if making it would take long."""
        scope = self._get(key)
        return scope if scope is not None or not self._is_quick(key) else self.find(key)

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

    def _get(self, key: Key) -> Scope | None:
        with self._lock:
            scope = self._kept.get(key)
            if scope is not None:
                self._kept.move_to_end(key)
        return scope

    def _keep(self, key: Key, scope: Scope) -> Scope:
        with self._lock:
            if key not in self._kept:  # another thread may have been faster
                self._kept[key] = scope
                self._kept_bytes += scope.size_bytes
            while self._kept_bytes > self._limit_bytes and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._kept_bytes -= dropped.size_bytes
        return scope

    def _is_quick(self, key: Key) -> bool:
        """Tell whether a filter keeps so little, by its lists, that no index will be made."""
        filters = self._bundle.filters
        if filters is None or not self._bundle.index.can_narrow:
            return True
        counts = [sum(len(filters.list_of(one)) for one in lists) for lists in key]
        return min(counts) <= self._limits.few and sum(counts) <= self._limits.looked_up

    def _make(self, key: Key) -> Scope:
        bundle = self._bundle
        if bundle.filters is None:  # no item has any value
            return Scope(RowSet.from_rows(NO_ROWS, len(bundle.vectors)), NO_ROWS)
        scope = scope_of(bundle.filters, key, len(bundle.vectors), self._limits.few)
        is_wide = scope.allowed.count > WIDE_SHARE * len(bundle.vectors)
        if scope.listed is not None or not bundle.index.can_narrow:
            return scope
        rows, lists = scope.allowed.rows(), self._lists_of_rows()
        if is_wide:
            return replace(scope, narrow=bundle.index.reweighted(rows, lists))
        return replace(scope, narrow=bundle.index.narrowed(rows, bundle.vectors, lists))

    def _lists_of_rows(self) -> Rows:
        with self._listing:
            if self._list_of_row is None:
                self._list_of_row = self._bundle.index.lists_of_rows()
            return self._list_of_row
