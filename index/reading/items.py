"""Read the items table: ids, attributes, features; or do without it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from index.arrays import Rows
from index.reading.features import (
    Floats,
    is_feature,
    join_blocks,
    read_arrays,
    read_list_columns,
)
from index.reading.tables import Findings, Source, encode_ids, open_source


@dataclass(frozen=True)
class Items:
    """What there is to retrieve, in the order of the file, which is the row order.

    attributes  the table without its feature columns, item_id as text
    modalities  name -> [items, width], sorted by name
    """

    ids: list[str]
    attributes: pa.Table
    modalities: dict[str, Floats]


def read_items(folder: Path, findings: Findings) -> Items | None:
    """Read items and features; None, the faults being told, if there are no ids to go by.

    Without an items table, the rows of features_<modality>.npy are the items "0", "1" ...
    """
    blocks = read_arrays(folder, findings)
    has_table = any((folder / name).exists() for name in ("items.parquet", "items.csv"))
    if blocks and not has_table:
        ids = [str(row) for row in range(len(blocks[0].values))]
        findings.notes.append(f"no items table: item ids are the rows of {blocks[0].place}")
        return Items(ids, pa.table({"item_id": ids}), join_blocks(blocks, ids, findings))
    source = open_source(folder, "items", ("item_id",), findings)
    ids_or_none = _read_ids(source, findings) if source else None
    if source:
        blocks += read_list_columns(source, findings)
    modalities = join_blocks(blocks, ids_or_none, findings)
    if source is None or ids_or_none is None:
        return None
    return Items(ids_or_none, _attributes(source, ids_or_none), modalities)


def _read_ids(source: Source, findings: Findings) -> list[str] | None:
    """Read the ids in the order of the file, telling of those that are there twice."""
    if source.table.column_names.count("item_id") != 1:
        return None
    ids = encode_ids(source, "item_id", findings)
    if ids is None:
        return None
    if len(ids.texts) != len(ids.rows):
        _tell_repeats(source, ids.rows, findings)
    return [ids.texts[row] if row >= 0 else "null" for row in ids.rows.tolist()]


def _tell_repeats(source: Source, codes: Rows, findings: Findings) -> None:
    """Tell of ids that more than one row holds; a null has been told already."""
    _, firsts, inverse = np.unique(codes, return_index=True, return_inverse=True)
    first_rows = firsts[inverse]  # [rows]
    repeats = np.flatnonzero((first_rows != np.arange(len(codes))) & (codes >= 0))
    if len(repeats):
        first = source.place(first_rows[repeats[0]])
        found = f"{source.cell('item_id', repeats[0])} again, it is also in {first}"
        remedy = "drop one of the two"
        findings.faults.append(
            source.fault("item_id", repeats, found, "each id in one row", remedy)
        )


def _attributes(source: Source, ids: list[str]) -> pa.Table:
    """Keep what people and filters read, in row order."""
    table = source.table
    kept = [place for place, field in enumerate(table.schema) if not is_feature(field.type)]
    attributes = table.select(kept).combine_chunks()
    place = attributes.column_names.index("item_id")
    return attributes.set_column(place, "item_id", pa.array(ids, pa.string()))
