"""Public ids of rows, both ways, memory-mapped.

Ids are text; a row is a position. A million ids in a dict cost half a second and 120 MB in
every process; here they are one blob, looked up by sorted 64-bit hashes, then compared byte by
byte, so that an unknown id is never taken for a known one.
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

from index.arrays import Hashes, Offsets, Rows, offsets_of, open_array, save_array
from index.errors import BundleError

MAX_PADDING, FREE_PADDING = 4, 65_536  # padded ids: times their own bytes, and bytes more
MAX_STEPS = 8  # beyond the first hash of a bucket, which holds one on average
BATCH = 16_384  # ids read at once, 2 ms: a million would fill caches and hold up threads
FIELDS = {"blob": "uint8", "offsets": "int64", "hashes": "uint64", "rows": "int32"}
BLAKE2B_64 = hashlib.blake2b(digest_size=8)  # to be copied: half the time of a new one


class PaddedIds(NamedTuple):
    """Ids as a matrix, each in as many bytes as the longest of them.

    Attributes:
        window: [ids, longest] uint8; the bytes behind a shorter id mean nothing.
        lengths: [ids] int64, bytes.
    """

    window: NDArray[np.uint8]
    lengths: NDArray[np.int64]

    @property
    def is_even(self) -> bool:
        """Whether all are of one length."""
        return bool((self.lengths == self.window.shape[1]).all())

    def is_own(self) -> NDArray[np.bool_]:
        """Return which bytes are an id's own; [ids, longest]."""
        own: NDArray[np.bool_] = np.arange(self.window.shape[1]) < self.lengths[:, np.newaxis]
        return own

    def joined(self) -> bytes:
        """Return the ids one after the other, without separators."""
        return (self.window if self.is_even else self.window[self.is_own()]).tobytes()


@dataclass(frozen=True)
class IdTable:
    """The ids of `count` rows.

    Attributes:
        blob: [bytes] uint8, all ids in row order, UTF-8, without separators.
        offsets: [count + 1] where each id starts in the blob.
        hashes: [count] ascending.
        rows: [count] the row of each hash.
    """

    blob: NDArray[np.uint8]
    offsets: Offsets
    hashes: Hashes
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def row_of(self, public_id: str) -> int:
        """Return the row of one id, or -1 where it is unknown."""
        return int(self.rows_of([public_id])[0])

    def rows_of(self, ids: Sequence[str]) -> Rows:
        """Return the row of each id, -1 where it is unknown; shape [len(ids)]."""
        if not len(self) or not ids:
            return np.full(len(ids), -1, dtype=np.int32)
        encoded = [one.encode("utf-8", "surrogatepass") for one in ids]
        wanted = hash_ids(encoded)
        places = self._places_of(wanted)
        is_found = self.hashes.take(places, mode="clip") == wanted
        rows: Rows = np.where(is_found, self.rows.take(places, mode="clip"), np.int32(-1))
        positions = np.flatnonzero(is_found)
        stored, bounds = self._read(rows[positions])
        if bounds == list(accumulate(map(len, encoded), initial=0)) and stored == b"".join(encoded):
            return rows  # nearly every request
        for position, (begin, end) in zip(positions.tolist(), pairwise(bounds), strict=True):
            if stored[begin:end] != encoded[position]:
                rows[position] = -1
        return rows

    def _places_of(self, wanted: Hashes) -> NDArray[np.integer]:
        """Return where each hash stands or would stand among the sorted ones.

        The first bits give the place nearly, a step or two the rest. Bisecting a million
        hashes instead costs ten cache misses an id: 7 % of a request.
        """
        shift, begins = self._buckets
        places: NDArray[np.integer] = begins[wanted >> shift]
        for _ in range(MAX_STEPS):
            is_before = self.hashes.take(places, mode="clip") < wanted
            if not is_before.any():
                return places
            places += is_before
        return np.asarray(np.searchsorted(self.hashes, wanted))

    @cached_property
    def _buckets(self) -> tuple[np.uint64, Rows]:
        """By how many bits to shift a hash, and where those of each result begin."""
        bits = len(self).bit_length()
        shift = np.uint64(64 - bits)
        firsts = np.arange(1 << bits, dtype=np.uint64) << shift
        return shift, np.searchsorted(self.hashes, firsts).astype(np.int32)

    def rows_of_each(self, lists: Sequence[Sequence[str]]) -> list[Rows]:
        """Return `rows_of` each list, all looked up together."""
        rows = self.rows_of([one for ids in lists for one in ids])
        return [rows[begin:end] for begin, end in pairwise(accumulate(map(len, lists), initial=0))]

    def ids_of(self, rows: Sequence[int] | Rows) -> list[str]:
        """Return the ids of rows, in the order asked."""
        ids: list[str] = []
        for first in range(0, len(rows), BATCH):
            encoded, bounds = self._read(rows[first : first + BATCH])
            text = encoded.decode()
            if text.isascii():  # a character is a byte, and slicing text is twice as fast
                ids += [text[begin:end] for begin, end in pairwise(bounds)]
            else:
                ids += [encoded[begin:end].decode() for begin, end in pairwise(bounds)]
        return ids

    def hashes_by_row(self) -> Hashes:
        """Return the hash of each id in row order, as a cluster map names its items."""
        hashes = np.empty(len(self), dtype=np.uint64)
        hashes[self.rows] = self.hashes
        return hashes

    def aligned(self, rows: Sequence[int] | Rows) -> PaddedIds | None:
        """Return the ids of rows as a matrix; None where the padding would be too much.

        Reads whole windows of the blob: several times as fast as byte by byte.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        starts = self.offsets.take(chosen)
        lengths = self.offsets.take(chosen + 1) - starts
        longest = int(lengths.max(initial=1))
        last = len(self.blob) - longest  # where such a window can start
        is_wasteful = longest * len(starts) > FREE_PADDING + MAX_PADDING * int(lengths.sum())
        if last < 0 or is_wasteful:
            return None
        windows = np.ndarray((last + 1,), f"S{longest}", self.blob, strides=(1,))
        read = windows[np.minimum(starts, last)]
        window = read.view(np.uint8).reshape(len(starts), longest)
        for place in np.flatnonzero(starts > last).tolist():  # too near the end for a window
            window[place, : lengths[place]] = self.blob[starts[place] :][: lengths[place]]
        return PaddedIds(window, lengths)

    def _read(self, rows: Sequence[int] | Rows) -> tuple[bytes, list[int]]:
        """Return the ids of rows, joined, and where each begins and the last one ends."""
        padded = self.aligned(rows)
        if padded is not None:
            return padded.joined(), list(accumulate(padded.lengths.tolist(), initial=0))
        chosen = np.asarray(rows, dtype=np.int64)
        parts = [self.blob[self.offsets[row] : self.offsets[row + 1]].tobytes() for row in chosen]
        return b"".join(parts), list(accumulate(map(len, parts), initial=0))

    def save(self, folder: Path, name: str) -> None:
        """Write the files of `files_of(name)`."""
        for field, file in zip(FIELDS, files_of(name), strict=True):
            save_array(folder / file, getattr(self, field))


def build_id_table(ids: Sequence[str]) -> IdTable:
    """Build a table from the ids in row order.

    Raises:
        BundleError: Two ids are equal, or share a 64-bit hash.
    """
    encoded = [one.encode() for one in ids]
    by_row = hash_ids(encoded)
    rows = np.argsort(by_row, kind="stable").astype(np.int32)
    hashes = by_row[rows]
    equal = np.flatnonzero(hashes[1:] == hashes[:-1])
    if len(equal):
        first, second = rows[equal[0] : equal[0] + 2].tolist()
        raise BundleError(
            f"ids {ids[first]!r} (row {first}) and {ids[second]!r} (row {second}) are equal or "
            "share a 64-bit hash; ids must be distinct: rename one of them"
        )
    blob = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    return IdTable(blob, offsets_of(map(len, encoded)), hashes, rows)


def open_id_table(folder: Path, name: str) -> IdTable:
    """Open a saved table, memory-mapped.

    Raises:
        ValueError, OSError: A file is not a plain array; the caller names the bundle.
    """
    files = zip(files_of(name), FIELDS.values(), strict=True)
    return IdTable(*(open_array(folder / file, dtype) for file, dtype in files))


def files_of(name: str) -> tuple[str, ...]:
    """Return the files of a table saved under `name`."""
    return tuple(f"{name}.{field}.npy" for field in FIELDS)


def hash_ids(encoded_ids: Iterable[bytes]) -> Hashes:
    """Hash ids to 64 bits: BLAKE2b with an 8-byte digest, read little-endian."""
    digests = []
    for one in encoded_ids:
        digest = BLAKE2B_64.copy()
        digest.update(one)
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64, copy=False)


def digest_of(ids: Sequence[str]) -> str:
    """Return the sha256 over the ids in row order, each as its length (8 bytes) and UTF-8."""
    digest = hashlib.sha256()
    for one in ids:
        encoded = one.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()
