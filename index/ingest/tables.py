"""Read Parquet and CSV tables and locate faults in them."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.arrays import Rows
from index.ingest.csv_tables import UTF_8, CsvError, line_numbers, read_csv
from index.ingest.values import UNREADABLE, is_valid, unreadable_rows

MAX_LISTED_NAMES = 20  # per message
MAX_REASON = 200  # characters of a library's message
UNREADABLE_FILE = (OSError, ValueError, pa.ArrowException)  # what reading a damaged file raises


@dataclass
class Findings:
    """Findings while reading: faults become one error at the end, notes go into the manifest."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """A table and the file that it was read from."""

    path: Path
    table: pa.Table
    label: str = ""

    @property
    def name(self) -> str:
        """Label of the file for messages, else its name."""
        return self.label or self.path.name

    @property
    def is_csv(self) -> bool:
        """Whether it is a CSV: all columns are text, messages use line numbers."""
        return self.path.suffix == ".csv"

    def fault(
        self, column: str, rows: NDArray[np.int64], received: str, expected: str, remedy: str
    ) -> str:
        """Describe invalid rows: the first in full, then the count and first locations."""
        message = f"{self.name}, column {column}, {self.location_of(rows[0])}: {received}"
        message += f"; expected {expected}; {remedy}"
        if len(rows) == 1:
            return message
        word = self.location_of(rows[0]).split()[0]
        examples = ", ".join(self.location_of(row).split()[1] for row in rows[:3])
        return f"{message} ({len(rows):,} such {word}s, the first: {examples})"

    def location_of(self, row: np.int64) -> str:
        """Return the location of a row: "row 17" from 0, or "line 19" of a CSV file."""
        if self.is_csv and row < len(self._lines):  # else its quotes are read in another way
            return f"line {self._lines[row]}"
        return f"row {row}"

    def cell(self, column: str, row: np.int64) -> str:
        """Return a cell for messages."""
        try:
            value = self.table[column][int(row)].as_py()
        except UNREADABLE:
            return f"an unreadable {self.table[column].type}"
        return "null" if value is None else quote(str(value))

    @cached_property
    def _lines(self) -> NDArray[np.int64]:
        return line_numbers(self.path)


@dataclass(frozen=True)
class Ids:
    """Dictionary-encoded column of ids.

    Attributes:
        rows: [count], positions in `texts`, -1 for null.
        texts: Distinct ids in order of first appearance.
    """

    rows: Rows
    texts: list[str]


def open_source(
    folder: Path, stem: str, columns: Sequence[str], findings: Findings
) -> Source | None:
    """Read `stem`.parquet or `stem`.csv; None if it, or a value in it, cannot be read.

    Missing columns are reported as faults, but the table is returned.
    """
    path = find_table(folder, stem, findings)
    if path is None:
        return None
    try:
        source = Source(path, read_table(path))
        faults = header_faults(path.name, source.table.column_names, columns)
    except CsvError as error:
        findings.faults.append(f"{path.name}: {error}")
        return None
    except (*UNREADABLE_FILE, csv.Error) as error:
        findings.faults.append(read_fault(path.name, path.suffix, error))
        return None
    if source.table.num_rows == 0:
        faults.append(no_rows_fault(path.name))
    invalid = _value_faults(source)
    findings.faults += faults + invalid
    return None if invalid else source


def find_table(folder: Path, stem: str, findings: Findings) -> Path | None:
    """Return the path of a table; None if it is missing, or there in both formats."""
    paths = [path for path in table_paths(folder, stem) if path.exists()]
    if len(paths) != 1:
        findings.faults.append(_file_count_fault(folder, stem, len(paths)))
        return None
    return paths[0]


def read_fault(name: str, suffix: str, error: Exception) -> str:
    """Describe a file that cannot be read."""
    return (
        f"{name}: cannot be read ({reason_of(error)}); expected a whole {suffix[1:]} file; "
        "write it again"
    )


def no_rows_fault(name: str) -> str:
    """Describe a table without rows."""
    return f"{name}: found no rows; expected at least one; fill the table"


def table_paths(folder: Path, stem: str) -> list[Path]:
    """Return the possible paths of a table."""
    return [folder / f"{stem}.parquet", folder / f"{stem}.csv"]


def encode_ids(source: Source, column: str, findings: Findings) -> Ids | None:
    """Read ids as text, integers in decimal; None if the column has another type."""
    values = to_plain(source.table[column])
    if fault := id_type_fault(source.name, column, values.type):
        findings.faults.append(fault)
        return None
    encoded = values.combine_chunks().dictionary_encode()
    rows = encoded.indices.fill_null(-1).to_numpy().astype(np.int32)
    texts = encoded.dictionary.cast(pa.string()).to_pylist()
    invalid = (("null", -1), ("an empty text", texts.index("") if "" in texts else -2))
    for received, code in invalid:
        invalid_rows = np.flatnonzero(rows == code)
        if len(invalid_rows):
            remedy = "give it one or drop the row"
            findings.faults.append(source.fault(column, invalid_rows, received, "an id", remedy))
    return Ids(rows, texts)


def id_type_fault(file: str, column: str, kind: pa.DataType) -> str | None:
    """Describe a column whose type holds no ids; None if it is text or integers."""
    if kind == pa.large_string() or pa.types.is_integer(kind):
        return None
    return (
        f"{file}, column {column}: found ids of type {kind}; expected text or integers; "
        "write them as text"
    )


def quote(text: str) -> str:
    """Quote a text for messages: on one line, at most 60 characters."""
    return repr(text if len(text) <= 60 else text[:60] + "...")


def reason_of(error: Exception) -> str:
    """Return the message of a library for our messages: on one line and not too long."""
    return " ".join(str(error).split())[:MAX_REASON]


def list_names(names: Sequence[str]) -> str:
    """List the first names for messages, and count the others."""
    more = len(names) - MAX_LISTED_NAMES
    shown = ", ".join(map(_printable, names[:MAX_LISTED_NAMES]))
    return (shown or "nothing") + (f" and {more:,} more" if more > 0 else "")


def suggest(name: str, known: Sequence[str]) -> str:
    """Return "; did you mean X?" for the most similar known name, or "" if none is similar."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = get_close_matches(name.lower(), by_lower, 1)
    return f"; did you mean {_printable(by_lower[matches[0]])}?" if matches else ""


def _printable(name: str) -> str:
    return name if name.isprintable() and name == name.strip() else quote(name)


def decode_dictionary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decode a dictionary-encoded column; return other columns unchanged."""
    kind = column.type
    return column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column


def to_plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decode a dictionary-encoded column, and make its text `large_string`."""
    values = decode_dictionary(column)
    return values.cast(plain_type(values.type))


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column after `to_plain`."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.large_string() if is_text(kind) or pa.types.is_string_view(kind) else kind


def rows_where(mask: Any) -> NDArray[np.int64]:  # noqa: ANN401  pyarrow publishes no types
    """Return the rows where a boolean column is true; null is false."""
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))


def read_table(path: Path) -> pa.Table:
    """Read a table; a CSV has columns of text and lists of text only."""
    if path.suffix == ".csv":
        return read_csv(path)
    with pq.ParquetFile(path) as file:
        return file.read().replace_schema_metadata(None)


def _file_count_fault(folder: Path, stem: str, count: int) -> str:
    """Describe a missing table, or one with two files."""
    if count:
        return (
            f"{stem}.parquet and {stem}.csv: both are there; expected one of them; "
            "remove the outdated file"
        )
    names = sorted(path.name for path in folder.iterdir())
    unused = [name for name in names if Path(name).stem not in ("items", "interactions")]
    return (
        f"{stem}.parquet: missing; expected {stem}.parquet or {stem}.csv in {folder}; "
        f"found: {list_names(names)}; put it there{suggest(f'{stem}.parquet', unused)}"
    )


def header_faults(file: str, names: list[str], columns: Sequence[str]) -> list[str]:
    """Describe missing and duplicate columns."""
    faults = [
        f"{file}, column {column}: missing; expected columns {' and '.join(columns)}; "
        f"found: {list_names(names)}; add or rename it{suggest(column, names)}"
        for column in columns
        if column not in names
    ]
    counts = Counter(names)
    faults += [
        f"{file}, column {name}: found {count} times; expected once; rename or drop one"
        for name, count in sorted(counts.items())
        if count > 1
    ]
    return faults


def _value_faults(source: Source) -> list[str]:
    """Describe columns with text that is not UTF-8."""
    columns = zip(source.table.column_names, source.table.columns, strict=True)
    return [
        value_fault(source, name, unreadable_rows(column), column.type)
        for name, column in columns
        if not is_valid(column)
    ]


def value_fault(source: Source, name: str, rows: NDArray[np.int64], kind: pa.DataType) -> str:
    """Describe a column with text that is not UTF-8, or otherwise malformed."""
    if not len(rows):
        return (
            f"{source.name}, column {name}: found malformed values of type {kind}; "
            "expected valid ones; write the column again"
        )
    remedy = UTF_8 if source.is_csv else "decode it with its encoding and write it again"
    return source.fault(name, rows, "found text that is not UTF-8", "UTF-8", remedy)


def is_text(kind: pa.DataType) -> bool:
    """Return whether the type is text, plain or dictionary-encoded."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_list(kind: pa.DataType) -> bool:
    """Return whether the type is a list."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
