"""Read the interactions file: ids, time and part of every row, then put in order.

It does not decide who is held out: split.py does.
"""

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
from trainer.data.interactions import PART_NAMES, Parts, first_of_pairs

CLOCKS = ("timestamp", "seq_pos")  # the first that is there tells the order
REMEDY = "correct it or drop the row"


@dataclass(frozen=True)
class Events:
    """Interactions before they are split.

    user_rows, item_rows  [count]
    file_rows             [count]  which row of the file it was
    timestamps               [count]  time or place in the user's sequence; None if unknown
    clock                 the column that timestamps are from; "" if unknown
    given_parts           [count]  from the split column; None if there is none
    """

    user_ids: list[str]
    user_rows: Rows
    item_rows: Rows
    file_rows: NDArray[np.int64]
    timestamps: NDArray[Any] | None
    clock: str
    given_parts: Parts | None


def read_events(source: Source, item_ids: list[str] | None, findings: Findings) -> Events | None:
    """Read the interactions in the order of the file; None if they cannot be, which is told.

    With item_ids None, the items themselves being at fault, nothing is compared with them.
    """
    names = source.table.column_names
    columns = {
        name: encode_ids(source, name, findings)
        for name in ("user_id", "item_id")
        if names.count(name) == 1
    }
    clock = next((name for name in CLOCKS if names.count(name) == 1), "")
    if all(name in names for name in CLOCKS):
        findings.notes.append("ordered by timestamp, seq_pos not used")
    timestamps = _read_timestamps(source, clock, findings) if clock else None
    given_parts = _read_parts(source, findings) if names.count("split") == 1 else None
    users, items = columns.get("user_id"), columns.get("item_id")
    if items is None or item_ids is None:
        return None
    item_rows = _match(source, items, item_ids, findings)
    if users is None:
        return None
    file_rows = np.arange(len(item_rows))
    return Events(users.texts, users.rows, item_rows, file_rows, timestamps, clock, given_parts)


def order_events(events: Events, findings: Findings) -> Events:
    """Sort by user, then time, ties by row of the file; keep the first of repeated pairs."""
    notes = findings.notes
    if events.timestamps is None:
        notes.append("no order known: neither timestamp nor seq_pos, histories are unordered")
        order = np.argsort(events.user_rows, kind="stable")
    else:
        order = np.lexsort((events.timestamps, events.user_rows))
    is_first = first_of_pairs(events.user_rows[order], events.item_rows[order])
    if repeat_count := int((~is_first).sum()):
        notes.append(f"repeated (user, item) rows dropped, first kept: {repeat_count:,}")
    kept = _take(events, order[is_first])
    if kept.timestamps is not None:
        is_tie = (np.diff(kept.user_rows) == 0) & (kept.timestamps[1:] == kept.timestamps[:-1])
        if tie_count := int(is_tie.sum()):
            notes.append(f"ties in {kept.clock}, broken by row of the file: {tie_count:,}")
    return kept


def _take(events: Events, rows: NDArray[np.int64]) -> Events:
    timestamps, parts = events.timestamps, events.given_parts
    return replace(
        events,
        user_rows=events.user_rows[rows],
        item_rows=events.item_rows[rows],
        file_rows=events.file_rows[rows],
        timestamps=None if timestamps is None else timestamps[rows],
        given_parts=None if parts is None else parts[rows],
    )


def _match(source: Source, items: Ids, item_ids: list[str], findings: Findings) -> Rows:
    """Find the row of each item among those of the items table; -1 where unknown."""
    known = pc.index_in(pa.array(items.texts, pa.string()), pa.array(item_ids, pa.string()))
    places = np.append(known.fill_null(-1).to_numpy(), -1).astype(np.int32)
    item_rows = places[items.rows]  # a null, -1, takes the last place
    is_told = np.array([text == "" for text in items.texts] + [True])
    unknown = np.flatnonzero((item_rows < 0) & ~is_told[items.rows])
    if len(unknown):
        found = quote(items.texts[items.rows[unknown[0]]])
        expected = f"one of the {len(item_ids):,} ids of the items table"
        remedy = "add the item or drop the row"
        findings.faults.append(source.fault("item_id", unknown, found, expected, remedy))
    return item_rows.astype(np.int32)


def _read_parts(source: Source, findings: Findings) -> Parts | None:
    """Read the split column as numbers of parts."""
    column = decode_dictionary(source.table["split"]).combine_chunks()
    try:
        found = pc.index_in(column, pa.array(PART_NAMES).cast(column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        found = pa.nulls(len(column), pa.int32())
    faulty = rows_where(found.is_null())
    if len(faulty):
        told = source.cell("split", faulty[0])
        remedy = "correct it, or drop the column to have it split for you"
        expected = "train, valid or test"
        findings.faults.append(source.fault("split", faulty, told, expected, remedy))
        return None
    parts: Parts = found.to_numpy().astype(np.int8)
    return parts


def _read_timestamps(source: Source, clock: str, findings: Findings) -> NDArray[Any] | None:
    """Read when each interaction was, as integers or finite floats."""
    column = source.table[clock].combine_chunks()
    if source.is_csv:
        column = _parse_timestamps(column)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float64()))
    elif not pa.types.is_integer(column.type):
        findings.faults.append(
            f"{source.name}, column {clock}: found type {column.type}; expected an integer, "
            "float or timestamp type; convert it, for instance to unix seconds"
        )
        return None
    faulty = rows_where(column.is_null())
    if len(faulty):
        found = source.cell(clock, faulty[0])
        expected = "a finite number or an ISO time, of one kind in all rows"
        findings.faults.append(source.fault(clock, faulty, found, expected, REMEDY))
        return None
    timestamps: NDArray[Any] = column.to_numpy()
    return timestamps


def _parse_timestamps(column: pa.Array) -> pa.Array:
    """Read text as integers, else floats, else ISO times; null where the kind does not fit."""
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        kinds = (pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC"))
        kind = min(kinds, key=lambda kind: _cast_or_null(column[:100], kind).null_count)
        return _cast_or_null(column, kind)


def _cast_or_null(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast what can be cast, by halving, so that a few faults cost little; the rest is null."""
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        if len(column) == 1:
            return pa.nulls(1, kind)
        half = len(column) // 2
        halves = (_cast_or_null(column[:half], kind), _cast_or_null(column[half:], kind))
        return pa.concat_arrays(halves)
