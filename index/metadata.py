"""Item metadata: attributes, told with each item, and the postings that filters read.

An attribute's values are kept as the JSON in which they are answered. Filter values are text:
an integer is its decimals, a boolean "true" or "false". An item may have many values, or none.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.arrays import Offsets, Rows, offsets_of, open_array, save_array
from index.ids import IdTable, build_id_table, files_of

ATTRIBUTE_FILES = ("attributes.blob.npy", "attributes.offsets.npy")
SEPARATOR = "\0"  # between an attribute's name and a value, in the table of both
FILTER_FILES = (*files_of("filter_values"), "filters.offsets.npy", "filters.rows.npy")

Postings = Mapping[str, Mapping[str, Rows]]  # attribute -> value -> rows, ascending


@dataclass(frozen=True)
class Attributes:
    """One JSON object per item, memory-mapped.

    Attributes:
        blob: [bytes] uint8, all objects in row order, UTF-8, without separators.
        offsets: [items + 1] where each object starts in the blob.
    """

    blob: NDArray[np.uint8]
    offsets: Offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, rows: Rows) -> list[bytes]:
        """Return the objects of rows, ready to be written into a response."""
        starts, ends = self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()
        return [self.blob[start:end].tobytes() for start, end in zip(starts, ends, strict=True)]

    def extended(self, more: "Attributes") -> "Attributes":
        """Return these objects and, in the rows after them, those of more items."""
        offsets = np.concatenate([self.offsets, more.offsets[1:] + self.offsets[-1]])
        return Attributes(np.concatenate([self.blob, more.blob]), offsets)

    def save(self, folder: Path) -> None:
        """Write the files of ATTRIBUTE_FILES."""
        save_array(folder / ATTRIBUTE_FILES[0], self.blob)
        save_array(folder / ATTRIBUTE_FILES[1], self.offsets)


def build_attributes(items: Iterable[Mapping[str, object]]) -> Attributes:
    """Build from each item's values by name, in row order; what is None is left out.

    Values are text, numbers, booleans, lists and objects of these; any other becomes its text.
    """
    texts = []
    for values in items:
        encodable = {name: _encodable(value) for name, value in values.items()}
        kept = {name: value for name, value in encodable.items() if value is not None}
        text = json.dumps(kept, ensure_ascii=False, separators=(",", ":"), default=str)
        texts.append(text.encode(errors="replace"))
    blob = np.frombuffer(b"".join(texts), dtype=np.uint8)
    return Attributes(blob, offsets_of(map(len, texts)))


def _encodable(value: object) -> object:
    """Replace NaN and infinity, which JSON lacks, by None, however deep they lie."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_encodable(one) for one in value]
    if isinstance(value, dict):
        return {name: _encodable(one) for name, one in value.items()}
    return value


def open_attributes(folder: Path) -> Attributes:
    """Open saved attributes, memory-mapped; raises ValueError or OSError, see `open_array`."""
    blob, offsets = ATTRIBUTE_FILES
    return Attributes(open_array(folder / blob, "uint8"), open_array(folder / offsets, "int64"))


@dataclass(frozen=True)
class Column:
    """The values of one attribute.

    Attributes:
        values: Each once.
        rows: [pairs] an item.
        places: [pairs] where in `values` a value of that item is.
    """

    values: Sequence[str]
    rows: Rows
    places: Rows

    def postings(self) -> dict[str, Rows]:
        """Return value -> rows that have it, ascending, each once; no value that none has."""
        order = np.lexsort((self.rows, self.places))
        places, rows = self.places[order], self.rows[order]
        is_new = np.ones(len(rows), dtype=np.bool_)
        is_new[1:] = (places[1:] != places[:-1]) | (rows[1:] != rows[:-1])
        places, rows = places[is_new], rows[is_new].astype(np.int32)
        bounds = np.searchsorted(places, np.arange(len(self.values) + 1))
        stretches = zip(self.values, bounds[:-1], bounds[1:], strict=True)
        return {value: rows[begin:end] for value, begin, end in stretches if end > begin}


@dataclass(frozen=True)
class Filters:
    """For each attribute and value, the rows that have it (CSR, memory-mapped).

    Attributes:
        keys: attribute, separator, value; those of one attribute beside each other.
        offsets: [keys + 1]
        rows: [pairs] ascending within a key.
    """

    keys: IdTable
    offsets: Offsets
    rows: Rows

    def of(self, attribute: str, values: Sequence[str]) -> list[Rows | None]:
        """Return the rows that have each value; None for one that no item has."""
        keys = self.keys_of(attribute, values)
        return [self.list_of(key) if key >= 0 else None for key in keys]

    def keys_of(self, attribute: str, values: Sequence[str]) -> list[int]:
        """Return the number of each value's key; -1 for one that no item has."""
        keys = self.keys.rows_of([attribute + SEPARATOR + value for value in values])
        return [int(key) for key in keys]

    def list_of(self, key: int) -> Rows:
        """Return the rows of a key, ascending."""
        return self.rows[self.offsets[key] : self.offsets[key + 1]]

    def value_counts(self) -> dict[str, int]:
        """Return attribute -> how many distinct values."""
        return dict(Counter(attribute for attribute, _ in self._named_keys()))

    def postings(self) -> dict[str, dict[str, Rows]]:
        """Return attribute -> value -> rows."""
        postings: dict[str, dict[str, Rows]] = {}
        for key, (attribute, value) in enumerate(self._named_keys()):
            postings.setdefault(attribute, {})[value] = self.list_of(key)
        return postings

    def _named_keys(self) -> list[tuple[str, str]]:
        keys = self.keys.ids_of(np.arange(len(self.keys), dtype=np.int32))
        parts = [key.partition(SEPARATOR) for key in keys]
        return [(attribute, value) for attribute, _, value in parts]

    def save(self, folder: Path) -> None:
        """Write the files of FILTER_FILES."""
        self.keys.save(folder, "filter_values")
        save_array(folder / "filters.offsets.npy", self.offsets)
        save_array(folder / "filters.rows.npy", self.rows)


def build_filters(columns: Mapping[str, Column]) -> Filters:
    """Build the postings of each column; a value that no item has gets none."""
    return filters_of({attribute: column.postings() for attribute, column in columns.items()})


def filters_of(postings: Postings) -> Filters:
    """Lay postings out beside each other."""
    keys, lists = [], []
    for attribute, values in postings.items():
        keys += [attribute + SEPARATOR + value for value in values]
        lists += list(values.values())
    rows = np.concatenate([np.empty(0, dtype=np.int32), *lists])
    return Filters(build_id_table(keys), offsets_of(map(len, lists)), rows)


def joined_postings(first: Postings, second: Postings, first_row: int) -> Postings:
    """Return the postings of two parts of a catalogue, the second from `first_row` on."""
    joined = {attribute: dict(values) for attribute, values in first.items()}
    for attribute, values in second.items():
        own = joined.setdefault(attribute, {})
        for value, rows in values.items():
            before = own.get(value, np.empty(0, dtype=np.int32))
            own[value] = np.concatenate([before, rows + np.int32(first_row)])
    return joined


@dataclass(frozen=True)
class ItemMetadata:
    """What the items' own columns say of them.

    Attributes:
        names: Of the attributes.
        attributes: None where there are none.
        filter_counts: What can be filtered by -> how many distinct values.
        filters: None where there is nothing to filter by.
    """

    names: Sequence[str] = ()
    attributes: Attributes | None = None
    filter_counts: Mapping[str, int] = field(default_factory=dict)
    filters: Filters | None = None

    def extended(self, more: "ItemMetadata", item_count: int) -> "ItemMetadata":
        """Return that of these items and, in the rows from `item_count` on, of more."""
        attributes = self.attributes
        if attributes is not None and more.attributes is not None:
            attributes = attributes.extended(more.attributes)
        own, new = (one.filters.postings() if one.filters else {} for one in (self, more))
        filters = filters_of(joined_postings(own, new, item_count))
        return ItemMetadata(
            names=self.names,
            attributes=attributes,
            filter_counts=dict.fromkeys(self.filter_counts, 0) | filters.value_counts(),
            filters=filters if len(filters.keys) else None,
        )

    def save(self, folder: Path) -> None:
        """Write the files of what there is."""
        for part in (self.attributes, self.filters):
            if part is not None:
                part.save(folder)


NO_METADATA = ItemMetadata()
