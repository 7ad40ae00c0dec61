"""One modality of the items: who has it, what is usual in it, which items look the same."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.arrays import Floats
from index.ids import hash_ids

CHUNK = 65_536  # items looked at at once


@dataclass(frozen=True)
class Modality:
    """One modality, as the alignment reads it.

    values   [items, width]  raw, NaN where missing
    mean     [width]         over the items that have it
    looks    [items]         items of equal rows have equal numbers
    is_here  [items]
    """

    values: Floats
    mean: Floats
    looks: NDArray[np.int64]
    is_here: NDArray[np.bool_]

    def unit_rows(self, rows: NDArray[np.int64]) -> Floats:
        """Return rows centred over the catalogue, then put on the unit sphere; [n, width]."""
        return unit(self.values[rows] - self.mean)

    def spread(self, encode: Callable[[NDArray[np.int64]], Floats], width: int) -> Floats:
        """Encode each different row once, in chunks, for all items of that look.

        So that equal raw rows are equal to the last bit, whatever chunk they fall in.
        returns  [items, width]  0 where missing
        """
        block = np.zeros((len(self.values), width), dtype=np.float32)
        rows = np.flatnonzero(self.is_here)
        firsts = rows[np.unique(self.looks[rows], return_index=True)[1]]
        for start in range(0, len(firsts), CHUNK):
            some = firsts[start : start + CHUNK]
            block[some] = encode(some)
        models = firsts[self.looks[rows]]
        is_copy = models != rows
        block[rows[is_copy]] = block[models[is_copy]]
        return block


def prepare(values: Floats) -> Modality:
    """Look a modality through: who has it, what is its mean, which rows are equal."""
    is_here = np.asarray(~np.isnan(values).any(axis=1))
    rows = np.flatnonzero(is_here)
    mean = np.zeros(values.shape[1], dtype=np.float64)
    looks = np.full(len(values), -1, dtype=np.int64)
    hashes = []
    for start in range(0, len(rows), CHUNK):
        some = values[rows[start : start + CHUNK]] + np.float32(
            0
        )  # -0 turns 0, so that equal rows are equal bytes
        mean += some.sum(axis=0, dtype=np.float64)
        hashes.append(hash_ids(row.tobytes() for row in some))
    if hashes:
        looks[rows] = np.unique(np.concatenate(hashes), return_inverse=True)[1]
    mean /= max(1, len(rows))
    return Modality(values, mean.astype(np.float32), looks, is_here)


def unit(rows: Floats) -> Floats:
    """Put rows on the unit sphere; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Floats = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
    return units
