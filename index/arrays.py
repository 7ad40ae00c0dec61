"""Array types, .npy files and ragged (CSR) arrays."""

import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.fsio import open_regular

Rows = NDArray[np.int32]
Floats = NDArray[np.float32]
Features = NDArray[np.float16] | NDArray[np.float32]
Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Save an array as .npy, without pickle."""
    np.save(path, array, allow_pickle=False)


def save_rows(path: Path, shape: tuple[int, int], chunks: Iterable[Floats]) -> Floats:
    """Save consecutive chunks of rows as .npy; return the whole array, memory-mapped."""
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, "<f4").data)
    rows: Floats = np.load(path, mmap_mode="r", allow_pickle=False)
    return rows


def scratch_zeros(shape: tuple[int, int]) -> Floats:
    """Return zeros in an unnamed temporary file mapped into memory, so that they occupy none.

    Raises:
        OSError: the disk is full.
    """
    size = 4 * shape[0] * shape[1]
    if not size:
        return np.zeros(shape, dtype=np.float32)
    with TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk is no bus error later
        return np.memmap(file, np.float32, shape=shape)


def open_array(path: Path, dtype: str, ndim: int = 1) -> Any:  # noqa: ANN401  # whose dtype is an argument
    """Open an .npy file memory-mapped and read-only, without pickle.

    Raises:
        ValueError: It is no regular file, or has another dtype or number of dimensions.
    """
    open_regular(path).close()  # NumPy would wait for the writer of a FIFO
    array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    if (array.dtype, array.ndim) != (np.dtype(dtype), ndim):
        received = f"{array.dtype} in {array.ndim} dimensions"
        raise ValueError(f"{path.name} is {received}, expected {dtype} in {ndim} dimensions")
    return array


def build_offsets(lengths: Iterable[int]) -> Offsets:
    """Build CSR offsets from segment lengths; [segments + 1]."""
    offsets: Offsets = np.cumsum([0, *lengths], dtype=np.int64)
    return offsets


def is_covering(offsets: Offsets, length: int) -> bool:
    """Return whether offsets start at 0, never decrease and end at `length`."""
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != length:
        return False
    return bool((offsets[1:] >= offsets[:-1]).all())


def is_within(rows: Rows, count: int) -> bool:
    """Return whether all rows are in [0, count)."""
    return not len(rows) or bool(rows.min() >= 0 and rows.max() < count)
