"""Which items of a catalogue: one bit per row, as the index reads them."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from index.arrays import Rows

Bits = NDArray[np.uint8]

WORD = 8  # bytes: bits come in whole words, so that counting is cheap
MANY = 64  # of so many rows one is many: then setting bits one by one is slower
BIT_OF: Bits = np.left_shift(1, np.arange(8)).astype(np.uint8)


@dataclass(frozen=True)
class RowSet:
    """Some rows of a catalogue; it never changes.

    bits        [words * 8]  uint8, row r is bit r % 8 of byte r // 8; 0 beyond the catalogue
    item_count  rows of the catalogue
    count       rows in the set
    """

    bits: Bits
    item_count: int
    count: int

    @classmethod
    def from_rows(cls, rows: Rows, item_count: int) -> Self:
        """Make the set of these rows, given in any order; one given twice counts once.

        Raises IndexError if a row is outside the catalogue.
        """
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < item_count:
            raise IndexError(f"rows reach from {rows.min()} to {rows.max()} of {item_count}")
        if len(rows) > item_count // MANY:
            is_in = np.zeros(8 * byte_count(item_count), dtype=np.bool_)
            is_in[rows] = True
            return cls._of(np.packbits(is_in, bitorder="little"), item_count)
        bits = np.zeros(byte_count(item_count), dtype=np.uint8)
        np.bitwise_or.at(bits, rows >> 3, BIT_OF[rows & 7])
        return cls._of(bits, item_count)

    def complement(self) -> Self:
        """Return all rows of the catalogue that are not in this set."""
        bits = ~self.bits
        whole, rest = divmod(self.item_count, 8)
        bits[whole + bool(rest) :] = 0
        if rest:
            bits[whole] &= (1 << rest) - 1
        return self._of(bits, self.item_count)

    def intersection(self, other: Self) -> Self:
        """Return the rows that are in both; raises ValueError for another catalogue's set."""
        if self.item_count != other.item_count:
            raise ValueError(f"sets over {self.item_count} and {other.item_count} items")
        return self._of(self.bits & other.bits, self.item_count)

    def without(self, rows: Rows) -> Self:
        """Return the set less these rows, which may be in it or not."""
        bits = self.bits.copy()
        np.bitwise_and.at(bits, rows >> 3, ~BIT_OF[rows & 7])
        return self._of(bits, self.item_count)

    def contains(self, rows: Rows) -> NDArray[np.bool_]:
        """Tell of each row whether it is in the set; shape [len(rows)]."""
        bits: Bits = self.bits[rows >> 3] & BIT_OF[rows & 7]
        return bits.astype(np.bool_)

    def rows(self) -> Rows:
        """Return the rows, ascending; [count]."""
        return self.rows_between(0, self.item_count)

    def rows_between(self, first: int, end: int) -> Rows:
        """Return the rows from `first` up to and without `end`, ascending.

        Both are multiples of 8, but for an end that is the catalogue's.
        """
        is_in = np.unpackbits(self.bits[first // 8 : -(-end // 8)], bitorder="little")
        rows = np.flatnonzero(is_in.view(np.bool_))  # as bool it is ten times as fast
        return (rows + first).astype(np.int32)

    @property
    def size_bytes(self) -> int:
        """Return how much memory it takes."""
        return int(self.bits.nbytes)

    @classmethod
    def _of(cls, bits: Bits, item_count: int) -> Self:
        bits.flags.writeable = False
        count = int(np.bitwise_count(bits.view(np.uint64)).sum(dtype=np.int64))
        return cls(bits, item_count, count)


def byte_count(item_count: int) -> int:
    """Return how many bytes the bits of a catalogue take, in whole words."""
    return -(-item_count // (8 * WORD)) * WORD
