"""Read the items of a dataset folder: ids, attributes and features.

The items table is optional. Features are list columns and features_<modality>.npy files.
"""

import tokenize
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index.arrays import Features, Floats, Rows
from index.ids import MAX_ID_LENGTH
from index.ingest.tables import (
    Findings,
    Source,
    decode_dictionary,
    encode_ids,
    is_list,
    open_source,
    quote,
    reason_of,
    table_paths,
)
from index.ingest.values import to_microseconds, unreadable_rows

PREFIX = "features_"
CHUNK = 65_536  # rows checked at once
INVALID_ARRAY = (  # what numpy.load raises for damaged files and impossible headers
    OSError,
    ValueError,
    TypeError,
    EOFError,
    OverflowError,
    MemoryError,
    tokenize.TokenError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Items:
    """Items in file order, which is the row order.

    Attributes:
        attributes: The table without feature columns, item_id as text.
        modalities: modality -> [items, width], sorted by name.
    """

    ids: list[str]
    attributes: pa.Table
    modalities: dict[str, Features]


def read_items(folder: Path, findings: Findings) -> Items | None:
    """Read items and features; None if there are no valid ids (see `findings.faults`).

    Without an items table, the rows of features_<modality>.npy are the items "0", "1" ...
    """
    blocks = read_arrays(folder, findings)
    has_table = any(path.exists() for path in table_paths(folder, "items"))
    if blocks and not has_table:
        ids = [str(row) for row in range(len(blocks[0].values))]
        findings.notes.append(f"no items table: item ids are the rows of {blocks[0].location}")
        return Items(ids, pa.table({"item_id": ids}), join_blocks(blocks, ids, findings))
    source = open_source(folder, "items", ("item_id",), findings)
    ids_or_none = _read_ids(source, findings) if source else None
    if source:
        blocks += read_list_columns(source, findings)
    modalities = join_blocks(blocks, ids_or_none, findings)
    if source is None or ids_or_none is None:
        return None
    return Items(ids_or_none, _attributes(source, ids_or_none, findings), modalities)


def _read_ids(source: Source, findings: Findings) -> list[str] | None:
    """Read the ids in file order and report duplicates."""
    if source.table.column_names.count("item_id") != 1:
        return None
    ids = encode_ids(source, "item_id", findings)
    if ids is None:
        return None
    if len(ids.texts) != len(ids.rows):
        _add_duplicate_fault(source, ids.rows, findings)
    if max(map(len, ids.texts), default=0) > MAX_ID_LENGTH:
        is_long = np.array([len(text) > MAX_ID_LENGTH for text in ids.texts])
        rows = np.flatnonzero((ids.rows >= 0) & is_long[ids.rows])
        received = f"an id of {len(ids.texts[ids.rows[rows[0]]]):,} characters"
        expected = f"at most {MAX_ID_LENGTH}, as in requests"
        findings.faults.append(source.fault("item_id", rows, received, expected, "shorten it"))
    return [ids.texts[row] if row >= 0 else "null" for row in ids.rows.tolist()]


def _add_duplicate_fault(source: Source, codes: Rows, findings: Findings) -> None:
    """Report ids in more than one row; nulls are reported elsewhere."""
    _, firsts, inverse = np.unique(codes, return_index=True, return_inverse=True)
    first_rows = firsts[inverse]  # [rows]
    repeats = np.flatnonzero((first_rows != np.arange(len(codes))) & (codes >= 0))
    if len(repeats):
        first = source.location_of(first_rows[repeats[0]])
        received = f"{source.cell('item_id', repeats[0])} again, it is also in {first}"
        remedy = "drop one of the two"
        findings.faults.append(
            source.fault("item_id", repeats, received, "each id in one row", remedy)
        )


def _attributes(source: Source, ids: list[str], findings: Findings) -> pa.Table:
    """Return the table without feature columns; report values that cannot be published."""
    columns = {}
    for name, column in zip(source.table.column_names, source.table.columns, strict=True):
        if is_feature(column.type):
            continue
        if name == "item_id":
            columns[name] = pa.chunked_array([pa.array(ids, pa.string())])
            continue
        columns[name] = to_microseconds(decode_dictionary(column))
        rows = unreadable_rows(columns[name])
        if len(rows):
            received = f"found a {column.type} that Python cannot represent"
            expected = "years 1 to 9999, a known time zone and at most microseconds"
            remedy = "correct the value, or write the column as text"
            findings.faults.append(source.fault(name, rows, received, expected, remedy))
    return pa.table(columns)


@dataclass(frozen=True)
class Block:
    """Feature rows of one modality.

    Attributes:
        location: File or column, for messages.
        values: [rows, width]; missing rows are NaN.
    """

    modality: str
    location: str
    values: Features


def is_feature(kind: pa.DataType) -> bool:
    """Return whether a column type holds features: lists of floats."""
    is_any_list = is_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(is_any_list and pa.types.is_floating(kind.value_type))


def read_arrays(folder: Path, findings: Findings) -> list[Block]:
    """Read all features_<modality>.npy of a folder; invalid ones are reported and skipped."""
    blocks = []
    for path in sorted(folder.glob(f"{PREFIX}?*.npy")):
        try:
            values = load_array(path)
        except ValueError as error:
            findings.faults.append(f"{path.name}: {error}")
            continue
        if fault := _shape_fault(values):
            findings.faults.append(f"{path.name}: {fault}")
            continue
        block = Block(path.stem.removeprefix(PREFIX), path.name, _as_features(values))
        blocks.append(block)
    return blocks


def load_array(path: Path) -> NDArray[Any]:
    """Load a .npy file; raises ValueError with finding, expectation and remedy."""
    try:
        with path.open("rb") as file:
            values = np.load(file, allow_pickle=False)
    except INVALID_ARRAY as error:
        if "pickle" in str(error):
            raise ValueError(
                "found pickled objects; expected numbers; write it with "
                'numpy.save(FILE, numpy.stack(rows).astype("float32"))'
            ) from error
        raise ValueError(
            f"cannot be read ({reason_of(error)}); expected a whole .npy file; "
            "write it with numpy.save"
        ) from error
    if not isinstance(values, np.ndarray):
        raise ValueError(
            "found an archive of arrays (.npz); expected one array; write it with numpy.save"
        )
    return values


def read_list_columns(items: Source, findings: Findings) -> list[Block]:
    """Read all list columns of floats as modalities; invalid ones are reported and skipped."""
    blocks = []
    for field in items.table.schema:
        if items.table.column_names.count(field.name) > 1 or not is_feature(field.type):
            continue
        values = _read_list_column(items, field.name, findings)
        if values is not None:
            location = f"{items.name}, column {field.name}"
            blocks.append(Block(field.name.removeprefix(PREFIX), location, values))
    return blocks


def join_blocks(
    blocks: list[Block], item_ids: list[str] | None, findings: Findings
) -> dict[str, Features]:
    """Collect the modalities by name and validate them; with item_ids None, only the values."""
    modalities: dict[str, Features] = {}
    locations: dict[str, str] = {}
    for block in sorted(blocks, key=lambda block: block.modality):
        name, count = block.modality, len(block.values)
        if name in locations:
            findings.faults.append(
                f"{block.location}: found the modality {name} again, also in {locations[name]}; "
                "expected each modality once; remove or rename one"
            )
        elif item_ids is not None and count != len(item_ids):
            findings.faults.append(
                f"{block.location}: found {count:,} rows; expected {len(item_ids):,}, one per item "
                "in the order of the items table; recreate it from that table"
            )
        else:
            modalities[name] = _mark_missing(block, item_ids, findings)
        locations.setdefault(name, block.location)
    if not blocks:
        findings.notes.append("no modality: items are known by id alone")
    return modalities


def _shape_fault(values: NDArray[Any]) -> str | None:
    """Return the fault in the type or shape of an array, if any."""
    if values.dtype not in (np.float16, np.float32, np.float64):
        return f"found {values.dtype}; expected float16, float32 or float64; convert it"
    if values.ndim != 2 or values.shape[1] == 0:
        return f"found shape {values.shape}; expected (items, width), width > 0; reshape it"
    if values.shape[0] == 0:
        return "found no rows; expected one per item; write it again, or remove it"
    return None


def _as_features(values: NDArray[np.floating]) -> Features:
    """Return float16 as it is, and other types as float32."""
    if values.dtype == np.float16:
        return values
    with np.errstate(over="ignore"):  # overflow becomes infinite, which is reported
        return values.astype(np.float32, copy=False)


def _read_list_column(items: Source, column: str, findings: Findings) -> Floats | None:
    """Read a list column as rows of numbers, null as a missing row; None if widths differ."""
    lists = items.table[column].combine_chunks()
    widths = pc.list_value_length(lists).fill_null(-1).to_numpy()
    present = np.flatnonzero(widths >= 0)
    width = int(widths[present[0]]) if len(present) else 0
    if width == 0:
        findings.faults.append(
            f"{items.name}, column {column}: found no list, or an empty first list; expected lists "
            "of equal width, or null; fill or drop the column"
        )
        return None
    ragged = present[widths[present] != width]
    if len(ragged):
        received = f"a list of {widths[ragged[0]]}"
        expected = f"{width} numbers as in row {present[0]}, or null"
        remedy = "make all rows of one width"
        findings.faults.append(items.fault(column, ragged, received, expected, remedy))
        return None
    values = np.full((len(lists), width), np.nan, dtype=np.float32)
    flat = pc.list_flatten(lists).to_numpy(zero_copy_only=False)  # null becomes NaN
    values[present] = _as_features(flat).reshape(-1, width)
    return values


def _mark_missing(block: Block, item_ids: list[str] | None, findings: Findings) -> Features:
    """Mark all-zero rows as missing; report rows with some NaN or infinite values."""
    width = block.values.shape[1]
    nan_counts, is_infinite, is_zero = _scan(block.values)
    for received, is_invalid in (
        (f"NaN among its {width} numbers", (nan_counts > 0) & (nan_counts < width)),
        ("an infinite number, as float32", is_infinite),
    ):
        rows = np.flatnonzero(is_invalid)
        if len(rows):
            findings.faults.append(_row_fault(block, rows, item_ids, received))
    is_missing = is_zero | (nan_counts == width)
    if is_missing.all():
        findings.faults.append(
            f"{block.location}: found every row missing (all NaN, null or zero); "
            "expected some values; fill it or remove it"
        )
    notes = {
        f"all-zero rows of {block.modality} counted as missing": is_zero,
        f"items without {block.modality}": is_missing,
    }
    findings.notes += [f"{note}: {mask.sum():,}" for note, mask in notes.items() if mask.any()]
    block.values[is_zero] = np.nan
    return block.values


def _scan(values: Features) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Count NaN in each row, and mark rows with infinite numbers and rows of zeros."""
    chunks = [values[first : first + CHUNK] for first in range(0, len(values), CHUNK)]
    return (
        np.concatenate([np.isnan(chunk).sum(axis=1) for chunk in chunks]),
        np.concatenate([np.isinf(chunk).any(axis=1) for chunk in chunks]),
        np.concatenate([~chunk.any(axis=1) for chunk in chunks]),
    )


def _row_fault(
    block: Block, rows: NDArray[np.int64], item_ids: list[str] | None, received: str
) -> str:
    """Describe invalid feature rows: the first with its item, then the others."""
    item = f" (item {quote(item_ids[rows[0]])})" if item_ids else ""
    message = (
        f"{block.location}, row {rows[0]}{item}: found {received}; expected finite numbers, or "
        "all NaN if missing; correct the row"
    )
    if len(rows) == 1:
        return message
    return f"{message} ({len(rows):,} such rows, the first: {', '.join(map(str, rows[:3]))})"
