"""What a search may return: the rows that a filter keeps."""

from dataclasses import dataclass

import numpy as np

from index.ann.index import ItemIndex
from index.arrays import Rows
from index.bitmap import RowSet
from index.metadata import Filters

Key = tuple[tuple[int, ...], ...]  # for each attribute, the lists of its values, ascending

OVERHEAD_BYTES = 1_024  # of a scope, whatever it holds


@dataclass(frozen=True)
class Scope:
    """The only rows that a search may return.

    allowed  as bits
    listed   ascending, where they are few; else None
    narrow   an index over these rows, and perhaps others, or the whole one weighted by them;
             None: there is none but the whole
    """

    allowed: RowSet
    listed: Rows | None = None
    narrow: ItemIndex | None = None

    @property
    def size_bytes(self) -> int:
        """Return about how much memory it takes."""
        listed = 0 if self.listed is None else int(self.listed.nbytes)
        narrow = self.narrow.size_bytes if self.narrow and self.is_filled else 0
        return OVERHEAD_BYTES + self.allowed.size_bytes + listed + narrow

    @property
    def is_filled(self) -> bool:
        """Return whether all that the narrow index holds is allowed."""
        return self.narrow is not None and self.narrow.count == self.allowed.count

    def within(self, allowed: RowSet) -> "Scope":
        """Return the part of it that is among these rows too."""
        listed = self.listed
        if listed is not None:
            listed = listed[allowed.contains(listed)]
        return Scope(self.allowed.intersection(allowed), listed, self.narrow)


def scope_of(filters: Filters, key: Key, item_count: int, few: int) -> Scope:
    """Look up the rows that a filter keeps: any of an attribute's values, all attributes.

    few  rows at most that are listed
    """
    allowed: RowSet | None = None
    for lists in key:
        rows = [NO_ROWS, *(filters.list_of(one) for one in lists)]
        own = RowSet.from_rows(np.concatenate(rows), item_count)
        allowed = own if allowed is None else allowed.intersection(own)
    assert allowed is not None  # where nothing is asked for, there is no scope
    listed = allowed.rows() if allowed.count <= few else None
    return Scope(allowed, listed)


NO_ROWS: Rows = np.empty(0, dtype=np.int32)
