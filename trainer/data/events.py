"""Reading and ordering of the interactions file; split.py splits the result."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index.arrays import Rows
from index.ingest.tables import (
    Findings,
    Ids,
    Source,
    decode_dictionary,
    encode_ids,
    quote,
    rows_where,
)
from trainer.data.interactions import PART_NAMES, Parts, mark_first_of_pairs

ORDER_COLUMNS = ("timestamp", "seq_pos")  # the first one present defines the order
REMEDY = "correct the value or drop the row"


@dataclass(frozen=True)
class Events:
    """Interactions before the split.

    Attributes:
        user_ids: ids in order of first appearance.
        user_rows: [count].
        item_rows: [count].
        file_rows: [count], row of the file.
        timestamps: [count], time or position in the user's sequence; None if unknown.
        order_column: column of the timestamps; "" if unknown.
        split_column: [count], parts of the split column; None if absent.
    """

    user_ids: list[str]
    user_rows: Rows
    item_rows: Rows
    file_rows: NDArray[np.int64]
    timestamps: NDArray[Any] | None
    order_column: str
    split_column: Parts | None


def read_events(source: Source, item_ids: list[str] | None, findings: Findings) -> Events | None:
    """Read the interactions in file order; None if a required column is unusable.

    Faults are added to `findings`. If `item_ids` is None because the items table is invalid,
    item ids are not checked.
    """
    names = source.table.column_names
    columns = {
        name: encode_ids(source, name, findings)
        for name in ("user_id", "item_id")
        if names.count(name) == 1
    }
    order_column = next((name for name in ORDER_COLUMNS if names.count(name) == 1), "")
    if all(name in names for name in ORDER_COLUMNS):
        findings.notes.append("ordered by timestamp, seq_pos not used")
    timestamps = _read_timestamps(source, order_column, findings) if order_column else None
    split_column = _read_parts(source, findings) if names.count("split") == 1 else None
    users, items = columns.get("user_id"), columns.get("item_id")
    if items is None or item_ids is None:
        return None
    item_rows = _match(source, items, item_ids, findings)
    if users is None:
        return None
    file_rows = np.arange(len(item_rows))
    return Events(
        users.texts, users.rows, item_rows, file_rows, timestamps, order_column, split_column
    )


def order_events(events: Events, findings: Findings) -> Events:
    """Sort by user, time and file row; keep the first of repeated (user, item) pairs."""
    notes = findings.notes
    if events.timestamps is None:
        notes.append("histories are unordered: neither timestamp nor seq_pos is present")
        order = np.argsort(events.user_rows, kind="stable")
    else:
        order = np.lexsort((events.timestamps, events.user_rows))
    is_first = mark_first_of_pairs(events.user_rows[order], events.item_rows[order])
    if repeat_count := int((~is_first).sum()):
        notes.append(f"repeated (user, item) rows dropped, first kept: {repeat_count:,}")
    kept = _take(events, order[is_first])
    if kept.timestamps is not None:
        is_tie = (np.diff(kept.user_rows) == 0) & (kept.timestamps[1:] == kept.timestamps[:-1])
        if tie_count := int(is_tie.sum()):
            notes.append(f"ties in {kept.order_column}, broken by file row: {tie_count:,}")
    return kept


def _take(events: Events, rows: NDArray[np.int64]) -> Events:
    timestamps, parts = events.timestamps, events.split_column
    return replace(
        events,
        user_rows=events.user_rows[rows],
        item_rows=events.item_rows[rows],
        file_rows=events.file_rows[rows],
        timestamps=None if timestamps is None else timestamps[rows],
        split_column=None if parts is None else parts[rows],
    )


def _match(source: Source, items: Ids, item_ids: list[str], findings: Findings) -> Rows:
    """Map each item id to its row in the items table; -1 where unknown."""
    known = pc.index_in(pa.array(items.texts, pa.string()), pa.array(item_ids, pa.string()))
    row_of = np.append(known.fill_null(-1).to_numpy(), -1).astype(np.int32)
    item_rows = row_of[items.rows]  # null is -1, the last element
    is_empty = np.array([text == "" for text in items.texts] + [True])  # reported already
    unknown = np.flatnonzero((item_rows < 0) & ~is_empty[items.rows])
    if len(unknown):
        received = quote(items.texts[items.rows[unknown[0]]])
        expected = f"one of the {len(item_ids):,} ids of the items table"
        remedy = "add the item or drop the row"
        findings.faults.append(source.fault("item_id", unknown, received, expected, remedy))
    return item_rows.astype(np.int32)


def _read_parts(source: Source, findings: Findings) -> Parts | None:
    """Read the split column as part numbers."""
    column = decode_dictionary(source.table["split"]).combine_chunks()
    try:
        indices = pc.index_in(column, pa.array(PART_NAMES).cast(column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        indices = pa.nulls(len(column), pa.int32())
    invalid = rows_where(indices.is_null())
    if len(invalid):
        received = source.cell("split", invalid[0])
        remedy = "correct the value, or drop the column to use another split"
        expected = "train, valid or test"
        findings.faults.append(source.fault("split", invalid, received, expected, remedy))
        return None
    parts: Parts = indices.to_numpy().astype(np.int8)
    return parts


def _read_timestamps(source: Source, name: str, findings: Findings) -> NDArray[Any] | None:
    """Read the order column as integers or finite floats."""
    column = decode_dictionary(source.table[name]).combine_chunks()
    if source.is_csv:
        column = _parse_timestamps(column)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float64()))
    elif not pa.types.is_integer(column.type):
        findings.faults.append(
            f"{source.name}, column {name}: found type {column.type}; expected an integer, "
            "float or timestamp type; convert it, for example to Unix seconds"
        )
        return None
    invalid = rows_where(column.is_null())
    if len(invalid):
        received = source.cell(name, invalid[0])
        expected = "a finite number or an ISO 8601 time, of one type in all rows"
        findings.faults.append(source.fault(name, invalid, received, expected, REMEDY))
        return None
    timestamps: NDArray[Any] = column.to_numpy()
    return timestamps


def _parse_timestamps(column: pa.Array) -> pa.Array:
    """Parse text as integers, else floats, else ISO 8601 times; null where parsing fails."""
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        times = [pa.timestamp(unit, zone) for unit in ("us", "ns") for zone in (None, "UTC")]
        kinds = (pa.float64(), *times)
        kind = min(kinds, key=lambda kind: _cast_or_null(column[:100], kind).null_count)
        return _cast_or_null(column, kind)


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
