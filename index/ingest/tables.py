"""Read a Parquet or CSV file, say where in it a fault is, and turn its columns into metadata.

It knows files, columns, rows and ids; not what items or interactions mean.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.arrays import Rows
from index.metadata import Column, ItemMetadata, build_attributes, build_filters

CHUNK = 16_384  # items turned into JSON at once


@dataclass
class Findings:
    """What reading has found so far: faults stop it at the end, notes go into the manifest."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """A file that could be read, and its columns."""

    path: Path
    table: pa.Table

    @property
    def name(self) -> str:
        """The name of the file, as messages give it."""
        return self.path.name

    @property
    def is_csv(self) -> bool:
        """Whether rows are told by line number and every column is text."""
        return self.path.suffix == ".csv"

    def fault(
        self, column: str, rows: NDArray[np.int64], found: str, expected: str, remedy: str
    ) -> str:
        """Tell of faulty rows: the first with its words, of the others how many and where."""
        told = f"{self.name}, column {column}, {self.place(rows[0])}: {found}"
        told += f"; expected {expected}; {remedy}"
        if len(rows) == 1:
            return told
        word = self.place(rows[0]).split()[0]
        examples = ", ".join(self.place(row).split()[1] for row in rows[:3])
        return f"{told} ({len(rows):,} such {word}s, the first: {examples})"

    def place(self, row: np.int64) -> str:
        """Where a row is: "row 17", counted from 0, or in a CSV "line 19" of the file."""
        return f"line {self._lines[row]}" if self.is_csv else f"row {row}"

    def cell(self, column: str, row: np.int64) -> str:
        """One cell, as messages give it."""
        value = self.table[column][int(row)].as_py()
        return "null" if value is None else quoted(str(value))

    @cached_property
    def _lines(self) -> NDArray[np.int64]:
        """The line of the file at which each row begins, counted from 1.  # [rows]"""
        starts, is_quoted = [], False
        with self.path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not is_quoted and line != "\n":  # a blank line is no row
                    starts.append(number)
                is_quoted ^= line.count('"') % 2 == 1  # a cell goes on in the next line
        return np.array(starts[1:], dtype=np.int64)


@dataclass(frozen=True)
class Ids:
    """A column of ids: each row's place among the different texts.

    rows   [count]  -1 where the file holds no id
    texts           different ids in order of first appearance
    """

    rows: Rows
    texts: list[str]


def open_source(
    folder: Path, stem: str, columns: Sequence[str], findings: Findings
) -> Source | None:
    """Read `stem`.parquet or `stem`.csv; None if nothing came of it, the fault being told.

    A missing column is told too, but the source is returned.
    """
    paths = [path for path in table_paths(folder, stem) if path.exists()]
    if len(paths) != 1:
        findings.faults.append(_not_one(folder, stem, len(paths)))
        return None
    path = paths[0]
    try:
        source = Source(path, read_table(path))
    except (OSError, ValueError, pa.ArrowException, csv.Error) as error:
        said = " ".join(str(error).split())
        findings.faults.append(
            f"{path.name}: cannot be read ({said}); "
            f"expected a whole {path.suffix[1:]} file; write it anew"
        )
        return None
    findings.faults.extend(_header_faults(source, columns))
    return source


def table_paths(folder: Path, stem: str) -> list[Path]:
    """Return where a table may be."""
    return [folder / f"{stem}.parquet", folder / f"{stem}.csv"]


def encode_ids(source: Source, column: str, findings: Findings) -> Ids | None:
    """Read ids as text, integers as canonical decimals; None if the type holds no ids."""
    values = undictionaried(source.table[column])
    if is_text(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.large_string())
    elif not pa.types.is_integer(values.type):
        findings.faults.append(
            f"{source.name}, column {column}: found ids of type {values.type}; "
            "expected text or integers; write them as text (a float has no one spelling)"
        )
        return None
    encoded = values.combine_chunks().dictionary_encode()
    rows = encoded.indices.fill_null(-1).to_numpy().astype(np.int32)
    texts = encoded.dictionary.cast(pa.string()).to_pylist()
    faulty = (("null", -1), ("an empty text", texts.index("") if "" in texts else -2))
    for found, code in faulty:
        places = np.flatnonzero(rows == code)
        if len(places):
            remedy = "give it one or drop the row"
            findings.faults.append(source.fault(column, places, found, "an id", remedy))
    return Ids(rows, texts)


def quoted(text: str) -> str:
    """Put a text of any length into a message: in one line, cut after 60 signs."""
    return repr(text if len(text) <= 60 else text[:60] + "...")


def undictionaried(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write out a column that was stored as places in a list of values."""
    kind = column.type
    return column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column


def rows_where(mask: Any) -> NDArray[np.int64]:  # noqa: ANN401  pyarrow publishes no types
    """The rows at which a boolean column is true, null counting as false."""
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))


def read_table(path: Path) -> pa.Table:
    """Read a whole file; of a CSV every column is text, "NA" and "007" are what they are."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            return file.read().replace_schema_metadata(None)
    with path.open(encoding="utf-8-sig", newline="") as text:
        header = next(csv.reader(text), [])
    return pa.csv.read_csv(
        path,
        read_options=pa.csv.ReadOptions(use_threads=False),  # else errors do not name the row
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string())),
    )


def _not_one(folder: Path, stem: str, count: int) -> str:
    """Say that there are no or two files of one name."""
    if count:
        return (
            f"{stem}.parquet and {stem}.csv: both are there; expected one of them; "
            "remove the one that is out of date"
        )
    names = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    return (
        f"{stem}.parquet: missing; expected {stem}.parquet or {stem}.csv in {folder}; "
        f"found: {names}; put it there"
    )


def _header_faults(source: Source, columns: Sequence[str]) -> list[str]:
    """Say which columns are missing or there twice, or that there are no rows."""
    names = source.table.column_names
    faults = [
        f"{source.name}, column {column}: missing; expected columns {' and '.join(columns)}; "
        f"found: {', '.join(names)}; add or rename it"
        for column in columns
        if column not in names
    ]
    faults += [
        f"{source.name}, column {name}: found {names.count(name)} times; expected once; "
        "rename or drop one"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if source.table.num_rows == 0:
        faults.append(f"{source.name}: found no rows; expected at least one; fill the table")
    return faults


@dataclass(frozen=True)
class PublishedColumns:
    """The columns that are published."""

    attributes: list[str]
    filters: list[str]


def item_metadata(table: pa.Table, chosen: PublishedColumns) -> ItemMetadata:
    """Turn the chosen columns into attributes and filters."""
    told, filtered = chosen.attributes, chosen.filters
    filters = build_filters({name: column_of(table[name]) for name in filtered})
    return ItemMetadata(
        names=told,
        attributes=build_attributes(_items(table, told)) if told else None,
        filter_counts=dict.fromkeys(filtered, 0) | filters.value_counts(),
        filters=filters if len(filters.keys) else None,
    )


def column_of(values: pa.ChunkedArray) -> Column:
    """Return the values of a column, and which items have which; empty text is none."""
    array = values.combine_chunks()
    owners = np.arange(len(array))
    if is_list(array.type):
        owners = pc.list_parent_indices(array).to_numpy(zero_copy_only=False)
        array = pc.list_flatten(array)
    coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    texts = [_text_of(value) for value in coded.dictionary.to_pylist()]
    distinct = list(dict.fromkeys(text for text in texts if text))  # two values may read alike
    place_of = {text: place for place, text in enumerate(distinct)}
    moved = np.array([*(place_of.get(text, -1) for text in texts), -1], dtype=np.int32)
    places = moved[coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)]
    has_any = places >= 0
    return Column(distinct, owners[has_any].astype(np.int32), places[has_any])


def is_filterable(kind: pa.DataType) -> bool:
    """Tell whether a column of this type can be filtered by."""
    if is_list(kind):
        return is_text(kind.value_type)
    return is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)


def is_tellable(kind: pa.DataType) -> bool:
    """Return whether a column of this type can be written as JSON."""
    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    return not any(is_kind(kind) for is_kind in tests)


def is_text(kind: pa.DataType) -> bool:
    """Tell whether it is text, plain or by a dictionary."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_list(kind: pa.DataType) -> bool:
    """Tell whether each cell is a list."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _text_of(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _items(table: pa.Table, names: Sequence[str]) -> Iterator[Mapping[str, object]]:
    for batch in table.select(names).to_batches(max_chunksize=CHUNK):
        yield from batch.to_pylist()
