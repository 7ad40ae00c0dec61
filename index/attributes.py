"""What people read of an item: a few named values, kept as the JSON they are answered as."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.arrays import Rows, open_array

ATTRIBUTE_FILES = ("attributes.blob.npy", "attributes.offsets.npy")
OPENING, CLOSING = b"{}"


@dataclass(frozen=True)
class Attributes:
    """One JSON object per item, memory-mapped.

    blob     [bytes]      uint8, all objects in row order, UTF-8, without separators
    offsets  [items + 1]  int64, where each object starts in the blob
    """

    blob: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, rows: Rows) -> list[bytes]:
        """Return the objects of rows, ready to be written into an answer."""
        starts, ends = self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()
        return [self.blob[start:end].tobytes() for start, end in zip(starts, ends, strict=True)]

    def extended(self, more: "Attributes") -> "Attributes":
        """Return these objects and, in the rows after them, those of more items."""
        offsets = np.concatenate([self.offsets, more.offsets[1:] + self.offsets[-1]])
        return Attributes(np.concatenate([self.blob, more.blob]), offsets)

    def faults(self, item_count: int) -> list[str]:
        """Return what is wrong with them; a line for each."""
        name, length = ATTRIBUTE_FILES[1], len(self.blob)
        if len(self.offsets) != item_count + 1:
            return [f"{name} is for {len(self.offsets) - 1} items, expected {item_count}"]
        starts, ends = self.offsets[:-1], self.offsets[1:]
        covers = self.offsets[0] == 0 and self.offsets[-1] == length
        if not covers or (ends - starts < len("{}")).any():
            return [
                f"{name} does not lead from 0 to the blob's {length} bytes, object by object"
            ]
        are_objects = (self.blob[starts] == OPENING) & (self.blob[ends - 1] == CLOSING)
        return [
            f"{ATTRIBUTE_FILES[0]}: that of row {row} is no JSON object"
            for row in np.flatnonzero(~are_objects)[:1]
        ]

    def save(self, folder: Path) -> None:
        """Write the files of ATTRIBUTE_FILES."""
        blob, offsets = ATTRIBUTE_FILES
        np.save(folder / blob, self.blob, allow_pickle=False)
        np.save(folder / offsets, self.offsets, allow_pickle=False)


def build_attributes(items: Iterable[Mapping[str, object]]) -> Attributes:
    """Build from each item's values by name, in row order; what is None is left out.

    Values are text, numbers, booleans, lists and objects of these; any other becomes its text.
    """
    blob, ends = bytearray(), [0]
    for values in items:
        told = {name: _told(value) for name, value in values.items()}
        kept = {name: value for name, value in told.items() if value is not None}
        text = json.dumps(kept, ensure_ascii=False, separators=(",", ":"), default=str)
        blob += text.encode(errors="replace")
        ends.append(len(blob))
    return Attributes(np.frombuffer(bytes(blob), dtype=np.uint8), np.array(ends, np.int64))


def _told(value: object) -> object:
    """Return what JSON can say of it; NaN and infinity it cannot, however deep they lie."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_told(one) for one in value]
    if isinstance(value, dict):
        return {name: _told(one) for name, one in value.items()}
    return value


def open_attributes(folder: Path) -> Attributes:
    """Open saved attributes, memory-mapped.

    Raises ValueError or OSError if a file is not a plain array; the caller names the bundle.
    """
    blob, offsets = ATTRIBUTE_FILES
    return Attributes(
        open_array(folder / blob, "uint8", 1), open_array(folder / offsets, "int64", 1)
    )
