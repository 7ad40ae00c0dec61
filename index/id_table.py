"""Public ids of rows, both ways, memory-mapped.

Ids are text; a row is a position. A million ids in a dict cost half a second and 120 MB in
every process; here they are one blob, looked up by sorted 64-bit hashes, then
compared byte by byte, so that an unknown id is never taken for a known one.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import BundleError

Rows = NDArray[np.int32]

MOST_STEPS = 24  # from where a hash's first bits say on; even hashes of a million need eight
WASTE, SPARE = 4, 65_536  # times the ids' own bytes, and bytes more, that aligned ones may take
MOST_LATE = 16  # ids that stand so near the end of the blob that each is read by itself
AT_ONCE = 16_384  # ids read in one go, 2 ms: a million would fill caches and hold up threads


def hashes_of(encoded_ids: Iterable[bytes]) -> NDArray[np.uint64]:
    """Hash ids to 64 bits: BLAKE2b with an 8-byte digest, read little-endian."""
    digests = b"".join([hashlib.blake2b(one, digest_size=8).digest() for one in encoded_ids])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64, copy=False)


def digest_of(ids: Sequence[str]) -> str:
    """Return the sha256 over the ids in row order, each as its length (8 bytes) and UTF-8."""
    digest = hashlib.sha256()
    for one in ids:
        encoded = one.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


class Aligned(NamedTuple):
    """Ids one below the other, each in as many bytes as the longest of them takes.

    window   [ids, longest]  uint8; what stands behind an id that is shorter means nothing
    lengths  [ids]           int64, bytes
    """

    window: NDArray[np.uint8]
    lengths: NDArray[np.int64]

    @property
    def is_even(self) -> bool:
        """Return whether all are of one length."""
        return bool((self.lengths == self.window.shape[1]).all())

    def is_own(self) -> NDArray[np.bool_]:
        """Tell which bytes are an id's own; [ids, longest]."""
        own: NDArray[np.bool_] = np.arange(self.window.shape[1]) < self.lengths[:, np.newaxis]
        return own

    def joined(self) -> bytes:
        """Return the ids one after the other, without separators."""
        return (self.window if self.is_even else self.window[self.is_own()]).tobytes()


@dataclass(frozen=True)
class IdTable:
    """The ids of `count` rows.

    blob     [bytes]      uint8, all ids in row order, UTF-8, without separators
    offsets  [count + 1]  int64, where each id starts in the blob
    hashes   [count]      uint64, ascending
    rows     [count]      int32, the row of each hash
    """

    blob: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    hashes: NDArray[np.uint64]
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
        encoded = [one.encode(errors="surrogatepass") for one in ids]
        wanted = hashes_of(encoded)
        places = self._places_of(wanted)
        rows = np.where(self.hashes[places] == wanted, self.rows[places], -1).astype(np.int32)
        positions = np.flatnonzero(rows >= 0)
        stored, bounds = self._stretches(rows[positions])
        ends = list(accumulate(map(len, encoded), initial=0))
        if bounds == ends and stored == b"".join(encoded):
            return rows  # what nearly every question comes to
        for position, (begin, end) in zip(positions.tolist(), pairwise(bounds), strict=True):
            if stored[begin:end] != encoded[position]:
                rows[position] = -1
        return rows

    def _places_of(self, wanted: NDArray[np.uint64]) -> NDArray[np.integer]:
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
            places = np.minimum(places + is_before, len(self) - 1)
        return np.minimum(np.searchsorted(self.hashes, wanted), len(self) - 1)

    @cached_property
    def _begins(self) -> tuple[int, Rows]:
        """How many first bits are looked at, and where the hashes of each value begin."""
        bits = len(self).bit_length()
        firsts = np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
        begins = np.minimum(np.searchsorted(self.hashes, firsts), len(self) - 1)
        return bits, begins.astype(np.int32)

    def rows_of_each(self, lists: Sequence[Sequence[str]]) -> list[Rows]:
        """Return `rows_of` each list, all looked up together."""
        if len(lists) == 1:
            return [self.rows_of(lists[0])]
        rows = self.rows_of([one for ids in lists for one in ids])
        ends = accumulate(map(len, lists), initial=0)
        return [rows[begin:end] for begin, end in pairwise(ends)]

    def ids_of(self, rows: Sequence[int] | Rows) -> list[str]:
        """Return the ids of rows, in the order asked."""
        if len(rows) <= AT_ONCE:
            return self._ids_of(rows)
        parts = (rows[begin : begin + AT_ONCE] for begin in range(0, len(rows), AT_ONCE))
        return [one for part in parts for one in self._ids_of(part)]

    def _ids_of(self, rows: Sequence[int] | Rows) -> list[str]:
        encoded, bounds = self._stretches(rows)
        text = encoded.decode()
        if text.isascii():  # a character is a byte, and cutting text is twice as fast
            return [text[begin:end] for begin, end in pairwise(bounds)]
        return [encoded[begin:end].decode() for begin, end in pairwise(bounds)]

    def _stretches(self, rows: Sequence[int] | Rows) -> tuple[bytes, list[int]]:
        """Return the ids of rows side by side, and where each begins and the last one ends."""
        starts, lengths = self._places(rows)
        bounds = list(accumulate(lengths.tolist(), initial=0))
        aligned = self._aligned(starts, lengths)
        if aligned is not None:
            return aligned.joined(), bounds
        shifts = (starts - np.array(bounds[:-1], dtype=np.int64)).repeat(lengths)
        shifts += np.arange(len(shifts))
        return self.blob.take(shifts).tobytes(), bounds

    def aligned(self, rows: Sequence[int] | Rows) -> Aligned | None:
        """Return the ids of rows, in the order asked; None where that would waste much."""
        return self._aligned(*self._places(rows))

    def _places(
        self, rows: Sequence[int] | Rows
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where each id starts, and how many bytes it has."""
        chosen = np.asarray(rows, dtype=np.int64)
        starts = self.offsets.take(chosen)
        return starts, self.offsets.take(chosen + 1) - starts

    def _aligned(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Aligned | None:
        """Read many bytes at once, wherever an id starts: several times as fast as each byte.

        None where one id is much longer than the others, or many end with the blob.
        """
        longest = int(lengths.max(initial=1))
        last = len(self.blob) - longest  # where a stretch so long can start
        late = np.flatnonzero(starts > last)
        is_wasteful = longest * len(starts) > SPARE + WASTE * int(lengths.sum())
        if last < 0 or is_wasteful or len(late) > MOST_LATE:
            return None
        windows = np.ndarray((last + 1,), f"S{longest}", self.blob, strides=(1,))
        read = windows[np.minimum(starts, last)]
        window = read.view(np.uint8).reshape(len(starts), longest)
        for place in late.tolist():
            window[place, : lengths[place]] = self.blob[starts[place] :][: lengths[place]]
        return Aligned(window, lengths)

    def hashes_by_row(self) -> NDArray[np.uint64]:
        """Return the hash of each id in row order, as a cluster map names its items."""
        hashes = np.empty(len(self), dtype=np.uint64)
        hashes[self.rows] = self.hashes
        return hashes

    def save(self, folder: Path, name: str) -> None:
        """Write `{name}.blob.npy`, `.offsets.npy`, `.hashes.npy` and `.rows.npy`."""
        for part in PARTS:
            np.save(folder / f"{name}.{part}.npy", getattr(self, part), allow_pickle=False)


PARTS = ("blob", "offsets", "hashes", "rows")
DTYPES = ("uint8", "int64", "uint64", "int32")


def files_of(name: str) -> tuple[str, ...]:
    """Name the files that a table saved under `name` consists of."""
    return tuple(f"{name}.{part}.npy" for part in PARTS)


def build_id_table(ids: Sequence[str]) -> IdTable:
    """Build a table from the ids in row order.

    Raises BundleError if two ids are equal, or share a 64-bit hash.
    """
    encoded = [one.encode() for one in ids]
    hashes = hashes_of(encoded)
    rows = np.argsort(hashes, kind="stable").astype(np.int32)
    ascending = hashes[rows]
    twins = np.flatnonzero(ascending[1:] == ascending[:-1])
    if len(twins):
        first, second = int(rows[twins[0]]), int(rows[twins[0] + 1])
        raise BundleError(
            f"ids {ids[first]!r} (row {first}) and {ids[second]!r} (row {second}) are equal or "
            "share a 64-bit hash; ids must be distinct: rename one of them"
        )
    offsets = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in encoded], out=offsets[1:])
    blob = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    return IdTable(blob, offsets, ascending, rows)


def open_id_table(folder: Path, name: str) -> IdTable:
    """Open a saved table, memory-mapped.

    Raises ValueError or OSError if a file is not a plain array; the caller names the bundle.
    """
    blob, offsets, hashes, rows = (
        open_array(folder / file, dtype, 1)
        for file, dtype in zip(files_of(name), DTYPES, strict=True)
    )
    return IdTable(blob, offsets, hashes, rows)


def open_array(path: Path, dtype: str, ndim: int) -> Any:  # noqa: ANN401  # whose dtype is an argument
    """Open an .npy file memory-mapped and read-only; never runs code from it.

    Raises ValueError if it is not an array of this dtype and so many dimensions.
    """
    array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    if (array.dtype, array.ndim) != (np.dtype(dtype), ndim):
        found = f"{array.dtype} in {array.ndim} dimensions"
        raise ValueError(f"{path.name} is {found}, expected {dtype} in {ndim}")
    return array
