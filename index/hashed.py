"""Rows by hashes of their ids; sorted, so that hardly anything is built for looking them up."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_digest

Hashes = NDArray[np.uint64]

MOST_STEPS = 24  # from where a hash's first bits say on; even hashes of a million need eight


def hashes_of(encoded_ids: Iterable[bytes]) -> Hashes:
    """Hash ids to 64 bits: BLAKE2b with an 8-byte digest, read little-endian."""
    digests = b"".join([hashlib.blake2b(one, digest_size=8).digest() for one in encoded_ids])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64, copy=False)


def quick_hashes_of(encoded_ids: Iterable[bytes]) -> Hashes:
    """Hash ids to 64 bits with XXH3, in a tenth of the time."""
    digests = b"".join(map(xxh3_64_digest, encoded_ids))
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


@dataclass(frozen=True)
class Hashed:
    """The rows that bear 64-bit hashes, evenly spread.

    hashes  [count]  uint64, ascending
    rows    [count]  int32, the row of each
    """

    hashes: Hashes
    rows: NDArray[np.int32]

    @classmethod
    def of(cls, by_row: Hashes) -> "Hashed":
        """Sort the hashes of all rows."""
        rows = np.argsort(by_row, kind="stable").astype(np.int32)
        return cls(by_row[rows], rows)

    def rows_of(self, wanted: Hashes) -> NDArray[np.int32]:
        """Return the row that bears each hash, -1 where none does; there must be rows."""
        places = self._places_of(wanted)
        rows = np.where(self.hashes[places] == wanted, self.rows[places], -1)
        return rows.astype(np.int32, copy=False)

    def twins(self) -> tuple[int, int] | None:
        """Return two rows that bear the same hash; None where there are none."""
        places = np.flatnonzero(self.hashes[1:] == self.hashes[:-1])
        if not len(places):
            return None
        return int(self.rows[places[0]]), int(self.rows[places[0] + 1])

    def _places_of(self, wanted: Hashes) -> NDArray[np.integer]:
        """Return where each hash stands, or near where it would stand, among the sorted ones.

        Their first bits tell the place nearly, a step or two the rest: bisection misses the
        processor's caches twenty times in a million ids.
        """
        bits, begins = self._begins
        places = begins.take((wanted >> np.uint64(64 - bits)).view(np.int64))
        for _ in range(MOST_STEPS):
            is_before = self.hashes.take(places) < wanted
            if not is_before.any():
                return places
            places = np.minimum(places + is_before, len(self.rows) - 1)
        return np.minimum(np.searchsorted(self.hashes, wanted), len(self.rows) - 1)

    @cached_property
    def _begins(self) -> tuple[int, NDArray[np.int32]]:
        """How many first bits are looked at, and where the hashes of each value begin."""
        bits = len(self.rows).bit_length()
        firsts = np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
        begins = np.minimum(np.searchsorted(self.hashes, firsts), len(self.rows) - 1)
        return bits, begins.astype(np.int32)
