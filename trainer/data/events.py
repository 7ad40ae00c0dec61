"""Reading and ordering of the interactions; split.py splits the result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index.arrays import Rows
from index.ingest.tables import Findings, Source, id_type_fault, plain_type, quote, rows_where
from trainer.data.interaction_files import ORDER_COLUMNS, USED, InteractionFiles
from trainer.data.interactions import (
    PART_NAMES,
    TRAIN,
    Parts,
    RowNumbers,
    mark_first_of_pairs,
    sort_by_user,
)

REMEDY = "correct the value or drop the row"


@dataclass(frozen=True)
class Events:
    """Interactions before the split.

    Attributes:
        user_ids: ids in order of first appearance, Arrow `large_string`.
        user_rows: [count].
        item_rows: [count].
        file_rows: [count], row of the file.
        timestamps: [count], time or position in the user's sequence; None if unknown.
        order_column: column of the timestamps; "" if unknown.
        split_column: [count], parts of the split column; None if absent.
    """

    user_ids: pa.Array
    user_rows: Rows
    item_rows: Rows
    file_rows: RowNumbers
    timestamps: NDArray[Any] | None
    order_column: str
    split_column: Parts | None


@dataclass
class IdCoder:
    """Codes of texts, in order of first appearance."""

    texts: pa.Array = field(default_factory=lambda: pa.array([], pa.large_string()))

    def encode(self, column: pa.ChunkedArray) -> Rows:
        """Code texts or integers, of which new ones get the next codes; -1 for null."""
        encoded = column.combine_chunks().dictionary_encode()
        texts = encoded.dictionary.cast(pa.large_string())
        known = pc.index_in(texts, value_set=self.texts)
        is_new = known.is_null()
        codes = np.append(known.fill_null(-1).to_numpy(), -1).astype(np.int32)
        codes[rows_where(is_new)] = len(self.texts) + np.arange(pc.sum(is_new).as_py() or 0)
        self.texts = pa.concat_arrays([self.texts, texts.filter(is_new)])
        rows: Rows = codes[encoded.indices.fill_null(-1).to_numpy()]  # null: the last element
        return rows

    def code_of(self, text: str) -> int:
        """Return the code of a text, -1 if it is unknown."""
        return int(pc.index(self.texts, text).as_py())


@dataclass
class Column:
    """Values of a column, filled batch by batch.

    Attributes:
        values: [count].
        parse: returns the values of a batch, and its invalid rows.
        expected: description of the valid values.
        remedy: what to do about others.
        invalid: invalid rows, by batch.
        received: the first invalid value.
    """

    values: NDArray[Any]
    parse: Callable[[pa.ChunkedArray], tuple[NDArray[Any], NDArray[np.int64]]]
    expected: str = ""
    remedy: str = REMEDY
    invalid: list[NDArray[np.int64]] = field(default_factory=list)
    received: str = ""

    def add(self, first: int, name: str, table: pa.Table) -> None:
        """Add a batch that starts at row `first`."""
        values, invalid = self.parse(table[name])
        self.values[first : first + len(table)] = values
        if len(invalid):
            self.received = self.received or Source(Path(), table).cell(name, invalid[0])
            self.invalid.append(first + invalid)


def read_events(
    files: InteractionFiles, item_ids: Sequence[str] | None, findings: Findings
) -> Events | None:
    """Read the interactions in file order; None if a required column is unusable.

    Faults are added to `findings`. If `item_ids` is None because the items table is invalid,
    item ids are not checked.
    """
    users, items = IdCoder(), IdCoder(pa.array(item_ids or [], pa.large_string()).unique())
    num_items = len(items.texts)
    coders = {"user_id": users, "item_id": items}
    columns = _open_columns(files, coders, findings)
    for first, table in files.batches(list(columns), findings):
        for name, column in columns.items():
            column.add(first, name, table)
    for name, column in columns.items():
        if name in coders:
            _check_ids(files, name, column.values, coders[name], findings)
        elif column.invalid:
            rows = np.concatenate(column.invalid)
            fault = files.fault(name, rows, column.received, column.expected, column.remedy)
            findings.faults.append(fault)
    if item_ids is None or "item_id" not in columns:
        return None
    _check_known(files, columns["item_id"].values, items, num_items, findings)
    return _build_events(columns, users.texts) if "user_id" in columns else None


def _build_events(columns: dict[str, Column], user_ids: pa.Array) -> Events:
    order_column = next((name for name in ORDER_COLUMNS if name in columns), "")
    user_rows = columns["user_id"].values
    return Events(
        user_ids=user_ids,
        user_rows=user_rows,
        item_rows=columns["item_id"].values,
        file_rows=np.arange(len(user_rows), dtype=np.uint32),
        timestamps=columns[order_column].values if order_column else None,
        order_column=order_column,
        split_column=columns["split"].values if "split" in columns else None,
    )


def _open_columns(
    files: InteractionFiles, coders: dict[str, IdCoder], findings: Findings
) -> dict[str, Column]:
    """Prepare the columns to read; those of an unusable type are reported and left out."""
    columns = {}
    for name in filter(files.has, USED):
        kind = plain_type(files.schema.field(name).type)
        if name in coders:
            column = _id_column(files, name, coders[name], kind, findings)
        elif name == "split":
            column = _split_column(files.num_rows)
        elif name == "seq_pos" and files.has("timestamp"):
            findings.notes.append("ordered by timestamp, seq_pos not used")
            continue
        else:
            column = _time_column(files, name, kind, findings)
        if column is not None:
            columns[name] = column
    return columns


def order_events(events: Events, findings: Findings) -> Events:
    """Sort by user, time and file row; keep the first of repeated (user, item) pairs."""
    notes = findings.notes
    if events.timestamps is None:
        notes.append("histories are unordered: neither timestamp nor seq_pos is present")
    order = sort_by_user(events.user_rows, events.timestamps)
    is_first = mark_first_of_pairs(events.user_rows[order], events.item_rows[order])
    if repeat_count := len(is_first) - int(is_first.sum()):
        notes.append(f"repeated (user, item) rows dropped, first kept: {repeat_count:,}")
        order = order[is_first]
    events = _take(events, order)
    if events.timestamps is not None:
        is_tie = events.user_rows[1:] == events.user_rows[:-1]
        is_tie &= events.timestamps[1:] == events.timestamps[:-1]
        if tie_count := int(is_tie.sum()):
            notes.append(f"ties in {events.order_column}, broken by file row: {tie_count:,}")
    return events


def _take(events: Events, rows: RowNumbers) -> Events:
    timestamps, parts = events.timestamps, events.split_column
    return replace(
        events,
        user_rows=events.user_rows[rows],
        item_rows=events.item_rows[rows],
        file_rows=events.file_rows[rows],
        timestamps=None if timestamps is None else timestamps[rows],
        split_column=None if parts is None else parts[rows],
    )


def _id_column(
    files: InteractionFiles, name: str, coder: IdCoder, kind: pa.DataType, findings: Findings
) -> Column | None:
    """Prepare a column of ids; None if it has another type."""
    if fault := id_type_fault(files.name, name, kind):
        findings.faults.append(fault)
        return None
    nothing = np.empty(0, dtype=np.int64)  # ids are checked when all are known
    return Column(
        np.zeros(files.num_rows, np.int32), lambda column: (coder.encode(column), nothing)
    )


def _check_ids(
    files: InteractionFiles, name: str, codes: Rows, coder: IdCoder, findings: Findings
) -> None:
    """Report null and empty ids."""
    empty = coder.code_of("")
    for received, code in (("null", -1), ("an empty text", empty)):
        rows = np.flatnonzero(codes == code)
        if len(rows) and (received == "null" or empty >= 0):
            remedy = "give it one or drop the row"
            findings.faults.append(files.fault(name, rows, received, "an id", remedy))


def _check_known(
    files: InteractionFiles, codes: Rows, coder: IdCoder, num_items: int, findings: Findings
) -> None:
    """Report ids that are not in the items table; an empty one is reported already."""
    rows = np.flatnonzero((codes >= num_items) & (codes != coder.code_of("")))
    if len(rows):
        received = quote(coder.texts[int(codes[rows[0]])].as_py())
        expected = f"one of the {num_items:,} ids of the items table"
        remedy = "add the item or drop the row"
        findings.faults.append(files.fault("item_id", rows, received, expected, remedy))


def _split_column(count: int) -> Column:
    remedy = "correct the value, or drop the column to use another split"
    return Column(np.zeros(count, np.int8), _parse_parts, "train, valid or test", remedy)


def _parse_parts(column: pa.ChunkedArray) -> tuple[Parts, NDArray[np.int64]]:
    """Parse the split column as part numbers."""
    values = column.combine_chunks()
    try:
        indices = pc.index_in(values, pa.array(PART_NAMES).cast(values.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        indices = pa.nulls(len(values), pa.int32())
    parts: Parts = indices.fill_null(TRAIN).to_numpy().astype(np.int8)
    return parts, rows_where(indices.is_null())


def _time_column(
    files: InteractionFiles, name: str, kind: pa.DataType, findings: Findings
) -> Column | None:
    """Prepare the order column, of integers or finite floats; None if it has another type."""
    if files.is_csv:
        kind = _choose_type(files.sources[0].table[name].combine_chunks())
    if pa.types.is_timestamp(kind):
        stored: np.dtype[Any] = np.dtype(np.int64)
    elif pa.types.is_floating(kind):
        stored = np.dtype(np.float64)
    elif pa.types.is_integer(kind):
        stored = np.dtype(kind.to_pandas_dtype())
    else:
        findings.faults.append(
            f"{files.name}, column {name}: found type {files.schema.field(name).type}; "
            "expected an integer, float or timestamp type; convert it, for example to Unix seconds"
        )
        return None
    expected = "a finite number or an ISO 8601 time, of one type in all rows"
    return Column(np.zeros(files.num_rows, stored), partial(_parse_times, kind=kind), expected)


def _parse_times(
    texts: pa.ChunkedArray, kind: pa.DataType
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return times as integers or finite floats, and the rows of others."""
    column = _cast_or_null(texts.combine_chunks(), kind)  # of a CSV; others have the type
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float64()))
    return column.fill_null(0).to_numpy(), rows_where(column.is_null())


def _choose_type(column: pa.Array) -> pa.DataType:
    """Return the type of most of the first texts: integer, else float or ISO 8601 time."""
    try:
        return column.cast(pa.int64()).type
    except pa.ArrowInvalid:
        times = [pa.timestamp(unit, zone) for unit in ("us", "ns") for zone in (None, "UTC")]
        kinds = (pa.float64(), *times)
        return min(kinds, key=lambda kind: _cast_or_null(column[:100], kind).null_count)


def _cast_or_null(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast values, null where that fails; bisection keeps a few invalid values cheap."""
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        if len(column) == 1:
            return pa.nulls(1, kind)
        half = len(column) // 2
        halves = (_cast_or_null(column[:half], kind), _cast_or_null(column[half:], kind))
        return pa.concat_arrays(halves)
