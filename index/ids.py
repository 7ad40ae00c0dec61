"""Memory-mapped table of public ids: id to row and row to id.

A dict of a million ids costs half a second and 120 MB in every process. The table is one blob
instead, searched by sorted 64-bit hashes. Matches are then compared byte by byte, so that a hash
collision never maps an unknown id to a row.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.arrays import Hashes, Offsets, Rows, build_offsets, open_array, save_array
from index.errors import BundleError

MAX_ID_LENGTH = 512  # characters, in requests, tables and denylists
MAX_PADDING, FREE_PADDING = 4, 65_536  # limit of padded ids: a factor, plus bytes
MAX_STEPS = 8  # linear probes in a bucket, which holds one hash on average
BATCH = 16_384  # ids read at once (2 ms), to keep caches warm and other threads running
FIELDS = {"blob": "uint8", "offsets": "int64", "hashes": "uint64", "rows": "int32"}
BLAKE2B_64 = hashlib.blake2b(digest_size=8)  # a copy costs half of a new object


class PaddedIds(NamedTuple):
    """Ids as a byte matrix, padded to the longest.

    Attributes:
        window: [ids, longest] uint8; bytes beyond the end of an id are undefined.
        lengths: [ids] int64, in bytes.
    """

    window: NDArray[np.uint8]
    lengths: NDArray[np.int64]

    @property
    def has_equal_lengths(self) -> bool:
        """Whether all ids have the same length."""
        return bool((self.lengths == self.window.shape[1]).all())

    def byte_mask(self) -> NDArray[np.bool_]:
        """Return which bytes belong to an id; [ids, longest]."""
        mask: NDArray[np.bool_] = np.arange(self.window.shape[1]) < self.lengths[:, np.newaxis]
        return mask

    def to_bytes(self) -> bytes:
        """Return the concatenated ids, without separators."""
        window = self.window if self.has_equal_lengths else self.window[self.byte_mask()]
        return window.tobytes()


@dataclass(frozen=True)
class IdTable:
    """Table of the ids of `count` rows.

    Attributes:
        blob: [bytes] uint8, all ids in row order, UTF-8, without separators.
        offsets: [count + 1], where each id starts in the blob.
        hashes: [count], ascending.
        rows: [count], the row of each hash.
    """

    blob: NDArray[np.uint8]
    offsets: Offsets
    hashes: Hashes
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def row_of(self, public_id: str) -> int:
        """Return the row of an id, -1 if unknown."""
        return int(self.rows_of([public_id])[0])

    def rows_of(self, ids: Sequence[str]) -> Rows:
        """Return the row of each id, -1 if unknown; [len(ids)]."""
        if not len(self) or not ids:
            return np.full(len(ids), -1, dtype=np.int32)
        encoded = [public_id.encode("utf-8", "surrogatepass") for public_id in ids]
        hashes = hash_ids(encoded)
        positions = self._positions_of(hashes)
        is_match = self.hashes.take(positions, mode="clip") == hashes
        rows: Rows = np.where(is_match, self.rows.take(positions, mode="clip"), np.int32(-1))
        matches = np.flatnonzero(is_match)
        stored, bounds = self._read(rows[matches])
        if bounds == list(accumulate(map(len, encoded), initial=0)) and stored == b"".join(encoded):
            return rows  # no hash collision: nearly every request
        for match, (begin, end) in zip(matches.tolist(), pairwise(bounds), strict=True):
            if stored[begin:end] != encoded[match]:
                rows[match] = -1
        return rows

    def _positions_of(self, hashes: Hashes) -> NDArray[np.integer]:
        """Return the insertion position of each hash among the sorted hashes.

        The leading bits select a bucket, a linear probe finds the position in it. A binary
        search over a million hashes costs ten cache misses per id, 7 % of a request.
        """
        shift, begins = self._buckets
        positions: NDArray[np.integer] = begins[hashes >> shift]
        for _ in range(MAX_STEPS):
            is_before = self.hashes.take(positions, mode="clip") < hashes
            if not is_before.any():
                return positions
            positions += is_before
        return np.asarray(np.searchsorted(self.hashes, hashes))

    @cached_property
    def _buckets(self) -> tuple[np.uint64, Rows]:
        """The shift that maps a hash to its bucket, and the first position of each bucket."""
        bits = len(self).bit_length()
        shift = np.uint64(64 - bits)
        firsts = np.arange(1 << bits, dtype=np.uint64) << shift
        return shift, np.searchsorted(self.hashes, firsts).astype(np.int32)

    def rows_of_each(self, lists: Sequence[Sequence[str]]) -> list[Rows]:
        """Return `rows_of` for each list, in one lookup."""
        rows = self.rows_of([public_id for ids in lists for public_id in ids])
        return [rows[begin:end] for begin, end in pairwise(accumulate(map(len, lists), initial=0))]

    def ids_of(self, rows: Sequence[int] | Rows) -> list[str]:
        """Return the ids of rows, in the order of the rows."""
        ids: list[str] = []
        for first in range(0, len(rows), BATCH):
            encoded, bounds = self._read(rows[first : first + BATCH])
            text = encoded.decode()
            if text.isascii():  # one byte per character; slicing str is twice as fast
                ids += [text[begin:end] for begin, end in pairwise(bounds)]
            else:
                ids += [encoded[begin:end].decode() for begin, end in pairwise(bounds)]
        return ids

    def hashes_by_row(self) -> Hashes:
        """Return the hash of each id in row order, as in a cluster map."""
        hashes = np.empty(len(self), dtype=np.uint64)
        hashes[self.rows] = self.hashes
        return hashes

    def has_all(self, hashes: Hashes) -> bool:
        """Return whether every hash is that of an id; `np.isin` takes 30 times as long."""
        ascending = np.sort(hashes)  # neighbouring lookups share cache lines
        nearest = self.hashes.take(np.searchsorted(self.hashes, ascending), mode="clip")
        return np.array_equal(nearest, ascending)

    def pad(self, rows: Sequence[int] | Rows) -> PaddedIds | None:
        """Return the ids of rows as a padded matrix; None if padding would waste memory.

        Reads whole windows of the blob, several times as fast as one id at a time.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        starts = self.offsets.take(chosen)
        lengths = self.offsets.take(chosen + 1) - starts
        longest = int(lengths.max(initial=1))
        last = len(self.blob) - longest  # the last possible start of a window
        is_wasteful = longest * len(starts) > FREE_PADDING + MAX_PADDING * int(lengths.sum())
        if last < 0 or is_wasteful:
            return None
        windows = np.ndarray((last + 1,), f"S{longest}", self.blob, strides=(1,))
        read = windows[np.minimum(starts, last)]
        window = read.view(np.uint8).reshape(len(starts), longest)
        for index in np.flatnonzero(starts > last).tolist():  # too near the end of the blob
            window[index, : lengths[index]] = self.blob[starts[index] :][: lengths[index]]
        return PaddedIds(window, lengths)

    def _read(self, rows: Sequence[int] | Rows) -> tuple[bytes, list[int]]:
        """Return the concatenated ids of rows, and their boundaries."""
        padded = self.pad(rows)
        if padded is not None:
            return padded.to_bytes(), list(accumulate(padded.lengths.tolist(), initial=0))
        chosen = np.asarray(rows, dtype=np.int64)
        parts = [self.blob[self.offsets[row] : self.offsets[row + 1]].tobytes() for row in chosen]
        return b"".join(parts), list(accumulate(map(len, parts), initial=0))

    def save(self, folder: Path, name: str) -> None:
        """Write the files listed by `files_of(name)`."""
        for field, file in zip(FIELDS, files_of(name), strict=True):
            save_array(folder / file, getattr(self, field))


def build_id_table(ids: Sequence[str]) -> IdTable:
    """Build a table from ids in row order.

    Raises:
        BundleError: Two ids are equal, or have the same 64-bit hash.
    """
    encoded = [public_id.encode() for public_id in ids]
    by_row = hash_ids(encoded)
    rows = np.argsort(by_row, kind="stable").astype(np.int32)
    hashes = by_row[rows]
    equal = np.flatnonzero(hashes[1:] == hashes[:-1])
    if len(equal):
        first, second = rows[equal[0] : equal[0] + 2].tolist()
        raise BundleError(
            f"ids {ids[first]!r} (row {first}) and {ids[second]!r} (row {second}) are equal or "
            "have the same 64-bit hash; expected distinct ids; rename one"
        )
    blob = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    return IdTable(blob, build_offsets(map(len, encoded)), hashes, rows)


def open_id_table(folder: Path, name: str) -> IdTable:
    """Open a saved table, memory-mapped.

    Raises:
        ValueError, OSError: A file is missing or not a plain array.
    """
    files = zip(files_of(name), FIELDS.values(), strict=True)
    return IdTable(*(open_array(folder / file, dtype) for file, dtype in files))


def files_of(name: str) -> tuple[str, ...]:
    """Return the file names of a table saved under `name`."""
    return tuple(f"{name}.{field}.npy" for field in FIELDS)


def hash_ids(encoded_ids: Iterable[bytes]) -> Hashes:
    """Hash ids to 64 bits: BLAKE2b with an 8-byte digest, read little-endian."""
    digests = []
    for encoded_id in encoded_ids:
        digest = BLAKE2B_64.copy()
        digest.update(encoded_id)
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64, copy=False)


def digest_ids(ids: Sequence[str]) -> str:
    """Return the sha256 over the ids in row order, each as its length (8 bytes) and UTF-8."""
    digest = hashlib.sha256()
    for public_id in ids:
        encoded = public_id.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()
