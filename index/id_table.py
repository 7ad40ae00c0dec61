"""Public ids of rows, both ways, memory-mapped.

Ids are text; a row is a position. A million ids in a dict cost half a second and 120 MB in
every process; here they are one blob, looked up by sorted 64-bit hashes, then
compared byte by byte, so that an unknown id is never taken for a known one.

BLAKE2b hashes name the items where bundles and cluster maps meet. They cost a question several
microseconds, so that ids which are often looked up have quick hashes too.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.errors import BundleError
from index.hashed import Hashed, Hashes, hashes_of, quick_hashes_of

Rows = NDArray[np.int32]

WASTE, SPARE = 4, 65_536  # times the ids' own bytes, and bytes more, that aligned ones may take
MOST_LATE = 16  # ids that stand so near the end of the blob that each is read by itself
AT_ONCE = 16_384  # ids read in one go, 2 ms: a million would fill caches and hold up threads


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
    quick    the rows by quick hashes; None: the others must do
    """

    blob: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    hashes: Hashes
    rows: Rows
    quick: Hashed | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def width(self) -> int | None:
        """How many bytes each id has, if all have as many."""
        lengths = np.diff(self.offsets)
        is_even = len(lengths) > 0 and bool((lengths == lengths[0]).all())
        return int(lengths[0]) if is_even else None

    def row_of(self, public_id: str) -> int:
        """Return the row of one id, or -1 where it is unknown."""
        return int(self.rows_of([public_id])[0])

    def rows_of(self, ids: Sequence[str]) -> Rows:
        """Return the row of each id, -1 where it is unknown; shape [len(ids)]."""
        if not len(self) or not ids:
            return np.full(len(ids), -1, dtype=np.int32)
        encoded = [one.encode("utf-8", "surrogatepass") for one in ids]
        if self.quick is not None:
            rows = self.quick.rows_of(quick_hashes_of(encoded))
        else:
            rows = self._hashed.rows_of(hashes_of(encoded))
        positions = np.flatnonzero(rows >= 0)
        stored, bounds = self._stretches(rows[positions])
        ends = list(accumulate(map(len, encoded), initial=0))
        if bounds == ends and stored == b"".join(encoded):
            return rows  # what nearly every question comes to
        for position, (begin, end) in zip(positions.tolist(), pairwise(bounds), strict=True):
            if stored[begin:end] != encoded[position]:
                rows[position] = -1
        return rows

    @cached_property
    def _hashed(self) -> Hashed:
        return Hashed(self.hashes, self.rows)

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
        if self.width is not None:  # two reads less for each
            return chosen * self.width, np.full(len(chosen), self.width)
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

    def hashes_by_row(self) -> Hashes:
        """Return the hash of each id in row order, as a cluster map names its items."""
        hashes = np.empty(len(self), dtype=np.uint64)
        hashes[self.rows] = self.hashes
        return hashes

    def quickened(self) -> "IdTable":
        """Return the same table with quick hashes, for ids that are often looked up.

        Without them where two ids share one, be it by malice.
        """
        encoded, bounds = self._stretches(np.arange(len(self), dtype=np.int32))
        ids = [encoded[begin:end] for begin, end in pairwise(bounds)]
        quick = Hashed.of(quick_hashes_of(ids))
        return self if quick.twins() else replace(self, quick=quick)

    def save(self, folder: Path, name: str) -> None:
        """Write `{name}.blob.npy`, `.offsets.npy`, `.hashes.npy` and `.rows.npy`.

        What it has of quick hashes goes into `{name}.xxh3.npy` and `.xxh3_rows.npy`.
        """
        for part in PARTS:
            np.save(folder / f"{name}.{part}.npy", getattr(self, part), allow_pickle=False)
        if self.quick is not None:
            hashes, rows = quick_files_of(name)
            np.save(folder / hashes, self.quick.hashes, allow_pickle=False)
            np.save(folder / rows, self.quick.rows, allow_pickle=False)


PARTS = ("blob", "offsets", "hashes", "rows")
DTYPES = ("uint8", "int64", "uint64", "int32")


def files_of(name: str) -> tuple[str, ...]:
    """Name the files that a table saved under `name` consists of."""
    return tuple(f"{name}.{part}.npy" for part in PARTS)


def quick_files_of(name: str) -> tuple[str, str]:
    """Name the files of its quick hashes."""
    return f"{name}.xxh3.npy", f"{name}.xxh3_rows.npy"


def build_id_table(ids: Sequence[str]) -> IdTable:
    """Build a table from the ids in row order.

    Raises BundleError if two ids are equal, or share a 64-bit hash.
    """
    encoded = [one.encode() for one in ids]
    hashed = Hashed.of(hashes_of(encoded))
    twins = hashed.twins()
    if twins is not None:
        first, second = twins
        raise BundleError(
            f"ids {ids[first]!r} (row {first}) and {ids[second]!r} (row {second}) are equal or "
            "share a 64-bit hash; ids must be distinct: rename one of them"
        )
    offsets = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in encoded], out=offsets[1:])
    blob = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    return IdTable(blob, offsets, hashed.hashes, hashed.rows)


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
