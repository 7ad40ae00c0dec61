"""Item metadata: attributes returned with candidates, and postings of filter values.

Attributes are stored as the JSON of the response. Filter values are text: integers in decimal,
booleans as "true" or "false". An item has any number of values.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.arrays import Offsets, Rows, build_offsets, open_array, save_array
from index.ids import IdTable, build_id_table, files_of

ATTRIBUTE_FILES = ("attributes.blob.npy", "attributes.offsets.npy")
SEPARATOR = "\0"  # between attribute and value in a filter key
FILTER_FILES = (*files_of("filter_values"), "filters.offsets.npy", "filters.rows.npy")

Postings = Mapping[str, Mapping[str, Rows]]  # attribute -> value -> rows, ascending


@dataclass(frozen=True)
class Attributes:
    """JSON object per item, memory-mapped.

    Attributes:
        blob: [bytes] uint8, all objects in row order, UTF-8, without separators.
        offsets: [items + 1], where each object starts in the blob.
    """

    blob: NDArray[np.uint8]
    offsets: Offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def get(self, rows: Rows) -> list[bytes]:
        """Return the JSON objects of rows."""
        starts, ends = self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()
        return [self.blob[start:end].tobytes() for start, end in zip(starts, ends, strict=True)]

    def concat(self, more: "Attributes") -> "Attributes":
        """Return the objects with those of more items appended."""
        offsets = np.concatenate([self.offsets, more.offsets[1:] + self.offsets[-1]])
        return Attributes(np.concatenate([self.blob, more.blob]), offsets)

    def save(self, folder: Path) -> None:
        """Write the files of ATTRIBUTE_FILES."""
        save_array(folder / ATTRIBUTE_FILES[0], self.blob)
        save_array(folder / ATTRIBUTE_FILES[1], self.offsets)


def build_attributes(items: Iterable[Mapping[str, object]]) -> Attributes:
    """Build attributes from dicts in row order, without their None values.

    Values that JSON cannot represent are converted with `str`.
    """
    texts = []
    for values in items:
        encodable = {name: _encodable(value) for name, value in values.items()}
        kept = {name: value for name, value in encodable.items() if value is not None}
        text = json.dumps(kept, ensure_ascii=False, separators=(",", ":"), default=str)
        texts.append(text.encode(errors="replace"))
    blob = np.frombuffer(b"".join(texts), dtype=np.uint8)
    return Attributes(blob, build_offsets(map(len, texts)))


def _encodable(value: object) -> object:
    """Replace NaN and infinity by None, recursively."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_encodable(element) for element in value]
    if isinstance(value, dict):
        return {name: _encodable(element) for name, element in value.items()}
    return value


def open_attributes(folder: Path) -> Attributes:
    """Open saved attributes, memory-mapped; raises ValueError or OSError, see `open_array`."""
    blob, offsets = ATTRIBUTE_FILES
    return Attributes(open_array(folder / blob, "uint8"), open_array(folder / offsets, "int64"))


@dataclass(frozen=True)
class Column:
    """Values of one attribute as (row, value) pairs.

    Attributes:
        values: Distinct values.
        rows: [pairs], item rows.
        value_indices: [pairs], positions in `values`.
    """

    values: Sequence[str]
    rows: Rows
    value_indices: Rows

    def postings(self) -> dict[str, Rows]:
        """Return value -> distinct rows, ascending; values without rows are left out."""
        order = np.lexsort((self.rows, self.value_indices))
        indices, rows = self.value_indices[order], self.rows[order]
        is_new = np.ones(len(rows), dtype=np.bool_)
        is_new[1:] = (indices[1:] != indices[:-1]) | (rows[1:] != rows[:-1])
        indices, rows = indices[is_new], rows[is_new].astype(np.int32)
        bounds = np.searchsorted(indices, np.arange(len(self.values) + 1))
        slices = zip(self.values, bounds[:-1], bounds[1:], strict=True)
        return {value: rows[begin:end] for value, begin, end in slices if end > begin}


@dataclass(frozen=True)
class Filters:
    """Postings of all filter values (CSR, memory-mapped).

    Attributes:
        keys: Attribute, separator and value; keys of one attribute are adjacent.
        offsets: [keys + 1]
        rows: [pairs], ascending within a key.
    """

    keys: IdTable
    offsets: Offsets
    rows: Rows

    def get(self, attribute: str, values: Sequence[str]) -> list[Rows | None]:
        """Return the rows of each value; None for values without rows."""
        keys = self.keys_of(attribute, values)
        return [self.posting_of(key) if key >= 0 else None for key in keys]

    def keys_of(self, attribute: str, values: Sequence[str]) -> list[int]:
        """Return the key index of each value, -1 for values without rows."""
        keys = self.keys.rows_of([attribute + SEPARATOR + value for value in values])
        return [int(key) for key in keys]

    def posting_of(self, key: int) -> Rows:
        """Return the rows of a key, ascending."""
        return self.rows[self.offsets[key] : self.offsets[key + 1]]

    def value_counts(self) -> dict[str, int]:
        """Return attribute -> number of distinct values."""
        return dict(Counter(attribute for attribute, _ in self._named_keys()))

    def postings(self) -> dict[str, dict[str, Rows]]:
        """Return attribute -> value -> rows."""
        postings: dict[str, dict[str, Rows]] = {}
        for key, (attribute, value) in enumerate(self._named_keys()):
            postings.setdefault(attribute, {})[value] = self.posting_of(key)
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
    """Build filters from columns; values without rows are left out."""
    return filters_from_postings(
        {attribute: column.postings() for attribute, column in columns.items()}
    )


def filters_from_postings(postings: Postings) -> Filters:
    """Build filters from postings (CSR)."""
    keys, lists = [], []
    for attribute, values in postings.items():
        keys += [attribute + SEPARATOR + value for value in values]
        lists += list(values.values())
    rows = np.concatenate([np.empty(0, dtype=np.int32), *lists])
    return Filters(build_id_table(keys), build_offsets(map(len, lists)), rows)


def concat_postings(first: Postings, second: Postings, first_row: int) -> Postings:
    """Concatenate the postings of two parts of a catalogue; the second starts at `first_row`."""
    joined = {attribute: dict(values) for attribute, values in first.items()}
    for attribute, values in second.items():
        own = joined.setdefault(attribute, {})
        for value, rows in values.items():
            before = own.get(value, np.empty(0, dtype=np.int32))
            own[value] = np.concatenate([before, rows + np.int32(first_row)])
    return joined


@dataclass(frozen=True)
class ItemMetadata:
    """Attributes and filters of a catalogue.

    Attributes:
        names: Attribute names.
        attributes: None without attributes.
        filter_counts: Filter attribute -> number of distinct values.
        filters: None without filter values.
    """

    names: Sequence[str] = ()
    attributes: Attributes | None = None
    filter_counts: Mapping[str, int] = field(default_factory=dict)
    filters: Filters | None = None

    def concat(self, more: "ItemMetadata", item_count: int) -> "ItemMetadata":
        """Return the metadata with that of more items appended, from row `item_count` on."""
        attributes = self.attributes
        if attributes is not None and more.attributes is not None:
            attributes = attributes.concat(more.attributes)
        own, new = (
            metadata.filters.postings() if metadata.filters else {} for metadata in (self, more)
        )
        filters = filters_from_postings(concat_postings(own, new, item_count))
        return ItemMetadata(
            names=self.names,
            attributes=attributes,
            filter_counts=dict.fromkeys(self.filter_counts, 0) | filters.value_counts(),
            filters=filters if len(filters.keys) else None,
        )

    def save(self, folder: Path) -> None:
        """Write the files of the attributes and filters that exist."""
        for part in (self.attributes, self.filters):
            if part is not None:
                part.save(folder)


NO_METADATA = ItemMetadata()
