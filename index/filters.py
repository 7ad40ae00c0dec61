"""Which items have which value of an attribute: lists of rows, memory-mapped.

Values are text: an integer is its decimals, a boolean "true" or "false". An item may have many
values of one attribute, or none: then it is in no list.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.arrays import Rows, is_covering, is_within
from index.claims import Claim, broken, id_claims
from index.ids import IdTable, build_id_table, files_of

SEPARATOR = "\0"  # between an attribute's name and a value, in the table of both
FILTER_FILES = (*files_of("filter_values"), "filters.offsets.npy", "filters.rows.npy")


@dataclass(frozen=True)
class Column:
    """The values of one attribute.

    values  each once
    rows    [pairs]  int32, an item
    places  [pairs]  int32, where in `values` stands a value that it has
    """

    values: Sequence[str]
    rows: Rows
    places: Rows


@dataclass(frozen=True)
class Filters:
    """For each attribute and value, the rows that have it, CSR.

    keys     attribute, separator, value; the lists of one attribute are beside each other
    offsets  [keys + 1]  int64
    rows     [pairs]     int32, ascending is_within a list
    """

    keys: IdTable
    offsets: NDArray[np.int64]
    rows: Rows

    def of(self, attribute: str, values: Sequence[str]) -> list[Rows | None]:
        """Return the rows that have each value; None for one that no item has."""
        keys = self.keys_of(attribute, values)
        return [self.list_of(key) if key >= 0 else None for key in keys]

    def keys_of(self, attribute: str, values: Sequence[str]) -> list[int]:
        """Return the number of each value's list; -1 for one that no item has."""
        found = self.keys.rows_of([attribute + SEPARATOR + value for value in values])
        return [int(key) for key in found]

    def list_of(self, key: int) -> Rows:
        """Return the rows of a list, ascending."""
        return self.rows[self.offsets[key] : self.offsets[key + 1]]

    def value_counts(self) -> dict[str, int]:
        """Return attribute -> how many distinct values; read from the files themselves."""
        keys = self._keys_told()
        return dict(Counter(key.partition(SEPARATOR)[0] for key in keys))

    def columns(self) -> dict[str, Column]:
        """Return the columns that they were built from, without attributes that have none."""
        keys = self._keys_told()
        lists: dict[str, dict[str, Rows]] = {}
        for place, key in enumerate(keys):
            attribute, _, value = key.partition(SEPARATOR)
            chosen = self.rows[self.offsets[place] : self.offsets[place + 1]]
            lists.setdefault(attribute, {})[value] = chosen
        return {attribute: column_of(own) for attribute, own in lists.items()}

    def faults(self, item_count: int, expected: Mapping[str, int]) -> list[str]:
        """Return what is wrong with them; a line for each.

        expected  attribute -> how many distinct values, as the manifest says
        """
        shapes: list[Claim] = [
            *id_claims("filter_values", self.keys, sum(expected.values())),
            ("filters.offsets.npy holds", len(self.offsets), len(self.keys) + 1),
            ("filters cover their rows:", is_covering(self.offsets, len(self.rows)), True),
        ]
        if faults := broken(shapes):
            return faults
        return broken(
            [
                (
                    "filters.rows.npy is is_within the items:",
                    is_within(self.rows, item_count),
                    True,
                ),
                ("filters.rows.npy ascends in each list:", self._ascends(), True),
                (
                    "filter_values holds",
                    self._told_counts(),
                    {name: count for name, count in expected.items() if count},
                ),
            ]
        )

    def _keys_told(self) -> list[str]:
        return self.keys.ids_of(np.arange(len(self.keys), dtype=np.int32))

    def _ascends(self) -> bool:
        rises = self.rows[1:] > self.rows[:-1]
        borders = self.offsets[1:-1] - 1  # what follows is of the next list
        rises[borders[(borders >= 0) & (borders < len(rises))]] = True
        return bool(rises.all())

    def _told_counts(self) -> dict[str, int] | str:
        try:
            return self.value_counts()
        except UnicodeDecodeError as error:
            return f"what is no UTF-8 ({error.reason})"

    def save(self, folder: Path) -> None:
        """Write the files of FILTER_FILES."""
        self.keys.save(folder, "filter_values")
        np.save(folder / "filters.offsets.npy", self.offsets, allow_pickle=False)
        np.save(folder / "filters.rows.npy", self.rows, allow_pickle=False)


def build_filters(columns: Mapping[str, Column]) -> Filters:
    """Build the lists of each column; a value that no item has gets none."""
    keys: list[str] = []
    lists: list[Rows] = []
    for attribute, column in columns.items():
        for value, rows in lists_of(column).items():
            keys.append(attribute + SEPARATOR + value)
            lists.append(rows)
    offsets = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(rows) for rows in lists], out=offsets[1:])
    rows = np.concatenate(lists) if lists else np.empty(0, dtype=np.int32)
    return Filters(build_id_table(keys), offsets, rows)


def lists_of(column: Column) -> dict[str, Rows]:
    """Return value -> rows that have it, ascending, each once."""
    order = np.lexsort((column.rows, column.places))
    places, rows = column.places[order], column.rows[order]
    is_new = np.ones(len(rows), dtype=np.bool_)
    is_new[1:] = (places[1:] != places[:-1]) | (rows[1:] != rows[:-1])
    places, rows = places[is_new], rows[is_new].astype(np.int32)
    bounds = np.searchsorted(places, np.arange(len(column.values) + 1))
    stretches = zip(column.values, bounds[:-1], bounds[1:], strict=True)
    return {value: rows[begin:end] for value, begin, end in stretches if end > begin}


def column_of(lists: Mapping[str, Rows]) -> Column:
    """Return the column of lists by value."""
    lengths = [len(rows) for rows in lists.values()]
    places = np.repeat(np.arange(len(lists), dtype=np.int32), lengths)
    return Column(list(lists), np.concatenate(list(lists.values())), places)


def joined(first: Mapping[str, Column], second: Mapping[str, Column]) -> dict[str, Column]:
    """Return the columns of two parts of a catalogue, whose rows are told apart already."""
    whole = {}
    for attribute in {**first, **second}:
        parts = [part[attribute] for part in (first, second) if attribute in part]
        values = list(dict.fromkeys(value for part in parts for value in part.values))
        place_of = {value: place for place, value in enumerate(values)}
        places = [
            np.array([place_of[value] for value in part.values], dtype=np.int32)[part.places]
            for part in parts
        ]
        rows = np.concatenate([part.rows for part in parts])
        whole[attribute] = Column(values, rows, np.concatenate(places))
    return whole
