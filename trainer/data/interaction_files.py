"""Files of the interactions, read in batches: a CSV, a Parquet file or a folder of parts."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.ingest.tables import (
    UNREADABLE_FILE,
    Findings,
    Source,
    find_table,
    header_faults,
    list_names,
    no_rows_fault,
    open_source,
    plain_type,
    read_fault,
    table_paths,
    to_plain,
    value_fault,
)
from index.ingest.values import is_valid, unreadable_rows

STEM = "interactions"
REQUIRED = ("user_id", "item_id")
ORDER_COLUMNS = ("timestamp", "seq_pos")  # the first one present defines the order
USED = (*REQUIRED, *ORDER_COLUMNS, "split")
DECODED_ROWS = 1 << 16  # at once, with the columns that are not used
BATCH_ROWS = 1 << 22  # of a batch; coding ids costs a hash table of all of them for each batch
BUFFER_BYTES = 1 << 20  # of a Parquet column

Tables = Iterator[tuple[int, pa.Table]]  # first row, rows


@dataclass(frozen=True)
class InteractionFiles:
    """Files of one table, which together have its rows.

    Attributes:
        sources: files in reading order; the tables are empty except that of a CSV.
        starts: [files + 1] int64, first row of each file; the last is the number of rows.
        schema: columns of the first file.
        batch_rows: rows of a batch, at least, the last excepted.
    """

    sources: Sequence[Source]
    starts: NDArray[np.int64]
    schema: pa.Schema
    batch_rows: int = BATCH_ROWS

    @property
    def name(self) -> str:
        """Name of the table in messages."""
        return self.sources[0].name if len(self.sources) == 1 else f"{STEM}.parquet"

    @property
    def is_csv(self) -> bool:
        """Whether it is a CSV, all of whose columns are text."""
        return self.sources[0].is_csv

    @property
    def num_rows(self) -> int:
        """Number of rows of all files."""
        return int(self.starts[-1])

    def has(self, column: str) -> bool:
        """Return whether there is exactly one column of this name."""
        return bool(self.schema.names.count(column) == 1)

    def batches(self, columns: Sequence[str], findings: Findings) -> Tables:
        """Yield row and values of batches; rows that cannot be read are reported and left out."""
        return _join(self._tables(columns, findings), self.batch_rows)

    def fault(
        self, column: str, rows: NDArray[np.int64], received: str, expected: str, remedy: str
    ) -> str:
        """Describe invalid rows: those of the first file, then the number of the others."""
        source, inside, others = self._split(rows)
        return source.fault(column, inside, received, expected, remedy) + others

    def _split(self, rows: NDArray[np.int64]) -> tuple[Source, NDArray[np.int64], str]:
        """Return the file of the first row, its part of the rows, and a note on the others."""
        files = np.searchsorted(self.starts, rows, side="right") - 1
        is_inside = files == files[0]
        others = files[~is_inside]
        note = f"; {len(others):,} more in {len(np.unique(others)):,} other files"
        inside = rows[is_inside] - self.starts[files[0]]
        return self.sources[files[0]], inside, note if len(others) else ""

    def _tables(self, columns: Sequence[str], findings: Findings) -> Tables:
        """Yield the valid small tables of all files; report the others at the end."""
        invalid: dict[str, list[NDArray[np.int64]]] = {}
        for source, start, end in zip(self.sources, self.starts, self.starts[1:], strict=False):
            try:
                for row, table in _read(source, int(end - start)):
                    if not _find_invalid(source, table, start + row, invalid, findings):
                        values = [to_plain(table[name]) for name in columns]
                        yield int(start + row), pa.table(values, names=list(columns))
            except UNREADABLE_FILE as error:
                findings.faults.append(read_fault(source.name, source.path.suffix, error))
        for name, rows in invalid.items():
            source, inside, others = self._split(np.concatenate(rows))
            findings.faults.append(value_fault(source, name, inside, pa.string()) + others)


def open_files(folder: Path, findings: Findings) -> InteractionFiles | None:
    """Open the files of the interactions; None if there are none that can be read.

    Missing columns, and parts of different schemas, are reported as faults.
    """
    path = find_table(folder, STEM, findings)
    if path is None:
        return None
    if path.suffix == ".csv":
        source = open_source(folder, STEM, REQUIRED, findings)
        if source is None:
            return None
        return InteractionFiles([source], np.array([0, len(source.table)]), source.table.schema)
    parts = [_open_part(part, folder, findings) for part in list_files(folder)]
    opened = [part for part in parts if part is not None]
    if not opened:
        if not parts:
            findings.faults.append(_no_parts_fault(path.name))
        return None
    return _join_parts(opened, findings)


def list_files(folder: Path) -> list[Path]:
    """Return the files of the interactions in reading order, which is that of their names.

    Names that start with a dot or an underscore are those of unfinished or additional files.
    """
    files: list[Path] = []
    for path in table_paths(folder, STEM):
        if path.is_dir():
            parts = [(part.relative_to(path).parts, part) for part in path.rglob("*.parquet")]
            files += [part for names, part in sorted(parts) if not any(map(_is_hidden, names))]
        elif path.exists():
            files.append(path)
    return files


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _open_part(path: Path, folder: Path, findings: Findings) -> tuple[Source, int] | None:
    """Read the schema and the number of rows of a Parquet file; None if it has none."""
    label = path.relative_to(folder).as_posix()
    try:
        with pq.ParquetFile(path) as file:
            return Source(path, file.schema_arrow.empty_table(), label), file.metadata.num_rows
    except UNREADABLE_FILE as error:
        findings.faults.append(read_fault(label, path.suffix, error))
        return None


def _join_parts(parts: Sequence[tuple[Source, int]], findings: Findings) -> InteractionFiles:
    """Report faults in the schemas of the parts, leave those out, and note what may be missing."""
    first = parts[0][0]
    findings.faults += header_faults(first.name, first.table.column_names, REQUIRED)
    alike = []
    for source, count in parts:
        faults = _schema_faults(source, first)
        findings.faults += faults
        if not faults:
            alike.append((source, count))
    counts = [count for _, count in alike]
    sources = [source for source, _ in alike]
    files = InteractionFiles(sources, np.cumsum([0, *counts]), first.table.schema)
    if not files.num_rows:
        findings.faults.append(no_rows_fault(files.name))
    elif 0 in counts:
        findings.notes.append(f"parts without rows: {counts.count(0):,}")
    if missing := _missing_numbers([source.path.name for source, _ in parts]):
        findings.notes.append(
            f"numbers without a part: {list_names(missing)}; check that all parts were copied"
        )
    return files


def _schema_faults(part: Source, first: Source) -> list[str]:
    """Describe used columns whose type is not that in the first part, or that only one has."""
    faults = []
    for name in USED:
        received, expected = _type_of(part, name), _type_of(first, name)
        if received != expected:
            faults.append(
                f"{part.name}, column {name}: found {received}; expected {expected} as in "
                f"{first.name}; write all parts with one schema"
            )
    return faults


def _type_of(part: Source, column: str) -> str:
    kinds = [field.type for field in part.table.schema if field.name == column]
    names = [str(plain_type(kind)).removeprefix("large_") for kind in kinds]
    return " and ".join(names) or "no such column"


def _missing_numbers(names: Sequence[str]) -> list[str]:
    """Return the numbers that are missing among those of parts `part-0`, `part-1`, ..."""
    matches = [re.match(r"part\D?(\d+)", name) for name in names]
    numbers = {int(match[1]) for match in matches if match}
    if not numbers or max(numbers) - min(numbers) > 2 * len(names):  # such as dates
        return []
    return [str(number) for number in range(min(numbers), max(numbers)) if number not in numbers]


def _no_parts_fault(name: str) -> str:
    return (
        f"{name}: found no parts in the folder; expected at least one file NAME.parquet; "
        "copy the parts there"
    )


def _read(source: Source, num_rows: int) -> Tables:
    """Yield row and values of small tables of a file."""
    if source.is_csv:
        yield from _number(source.table.to_batches(DECODED_ROWS))
        return
    with pq.ParquetFile(source.path, buffer_size=BUFFER_BYTES) as file:
        if file.metadata.num_rows != num_rows:
            raise ValueError("it was replaced while it was read")
        yield from _number(file.iter_batches(DECODED_ROWS))


def _number(batches: Iterable[pa.RecordBatch]) -> Tables:
    row = 0
    for batch in batches:
        yield row, pa.Table.from_batches([batch])
        row += len(batch)


def _find_invalid(
    source: Source,
    table: pa.Table,
    first: int,
    invalid: dict[str, list[NDArray[np.int64]]],
    findings: Findings,
) -> bool:
    """Collect the rows of malformed text by column; return whether there are any."""
    is_any = False
    for name, column in zip(table.column_names, table.columns, strict=True):
        if is_valid(column):
            continue
        is_any = True
        rows = unreadable_rows(column)
        if len(rows):
            invalid.setdefault(name, []).append(first + rows)
        else:
            findings.faults.append(value_fault(source, name, rows, column.type))
    return is_any


def _join(tables: Tables, num_rows: int) -> Tables:
    """Join adjacent tables to batches of at least `num_rows`."""
    first, count = 0, 0
    pending: list[pa.Table] = []
    for row, table in tables:
        if pending and (row != first + count or count >= num_rows):
            yield first, pa.concat_tables(pending)
            count, pending = 0, []
        if not pending:
            first = row
        pending.append(table)
        count += len(table)
    if pending:
        yield first, pa.concat_tables(pending)
