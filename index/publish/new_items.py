"""Items to be added to a bundle: read as the trainer reads them, held against the bundle."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.arrays import Floats
from index.bundle.reader import Bundle
from index.errors import DatasetError, FaultyBundleError
from index.ingest.items import Items, read_items
from index.ingest.tables import (
    Findings,
    PublishedColumns,
    is_filterable,
    is_tellable,
    is_text,
    item_metadata,
    quoted,
    read_table,
    undictionaried,
)
from index.metadata import ItemMetadata

TOLD = 20  # ids that a message lists


class Skip(NamedTuple):
    """Which items are passed over rather than refused."""

    known: bool = False
    empty: bool = False


@dataclass(frozen=True)
class NewItems:
    """Items that the bundle lacks, in the order of their table.

    features   modality -> [items, width], a missing row is all NaN
    metadata   what their columns say of them, as the bundle tells it
    table      all columns, of the types that the bundle's table has
    notes      what was passed over, counted or is worth knowing
    """

    ids: list[str]
    features: dict[str, Floats]
    metadata: ItemMetadata
    table: pa.Table
    notes: list[str]


def read_new_items(folder: Path, bundle: Bundle, skip: Skip) -> NewItems:
    """Read a folder of items; raises DatasetError with every fault found."""
    findings = Findings()
    if not folder.is_dir():
        raise DatasetError(str(folder), [f"{folder}: no such folder; give that of the items"])
    items = read_items(folder, findings)
    if items is None or findings.faults:
        raise DatasetError(str(folder), findings.faults)
    _compare_modalities(items, bundle, findings)
    is_new = _without_known(items, bundle, skip, findings)
    has_content = _with_content(items, bundle, is_new, skip, findings)
    chosen = np.flatnonzero(is_new & has_content)
    table = _as_published(items.attributes, bundle, findings).take(chosen)
    if findings.faults:
        raise DatasetError(str(folder), findings.faults)
    manifest = bundle.manifest
    return NewItems(
        ids=[items.ids[row] for row in chosen],
        features={name: rows[chosen] for name, rows in items.modalities.items()},
        metadata=item_metadata(
            table, PublishedColumns(manifest.attributes, list(manifest.filters))
        ),
        table=table,
        notes=findings.notes,
    )


def extend_items_table(published: Path, more: pa.Table, target: Path) -> None:
    """Write the table of all items: the bundle's own, then those that are added."""
    before = _plain(_published(published))
    pq.write_table(pa.concat_tables([before, more], promote_options="default"), target)


def _compare_modalities(items: Items, bundle: Bundle, findings: Findings) -> None:
    """Tell of features that the item encoder does not read, or not in this width."""
    wanted = bundle.manifest.modalities
    for name, rows in items.modalities.items():
        if name not in wanted:
            findings.faults.append(
                f"modality {name}: bundle {bundle.version} was not trained on it; expected "
                f"{', '.join(wanted)}; remove it, or train on it"
            )
        elif rows.shape[1] != wanted[name]:
            findings.faults.append(
                f"modality {name}: found {rows.shape[1]} numbers an item, expected "
                f"{wanted[name]} as bundle {bundle.version} was trained on; make it by the "
                "same means as then"
            )
    absent = sorted(set(wanted) - set(items.modalities))
    if absent:
        findings.notes.append(f"modalities that all of them lack: {', '.join(absent)}")


def _without_known(
    items: Items, bundle: Bundle, skip: Skip, findings: Findings
) -> NDArray[np.bool_]:
    is_new: NDArray[np.bool_] = bundle.items.rows_of(items.ids) < 0
    count = int((~is_new).sum())
    if count and skip.known:
        findings.notes.append(f"items that the bundle holds already, left out: {count:,}")
    elif count:
        findings.faults.append(
            f"item_id: found {count:,} that bundle {bundle.version} holds already: "
            f"{_listed(items.ids, ~is_new)}; expected new ones alone; leave them out with "
            "--skip-known (what the bundle says of them stays as it is)"
        )
    return is_new


def _with_content(
    items: Items,
    bundle: Bundle,
    is_new: NDArray[np.bool_],
    skip: Skip,
    findings: Findings,
) -> NDArray[np.bool_]:
    """Tell which items have a row of a modality that the encoder reads."""
    has_content = np.zeros(len(items.ids), dtype=np.bool_)
    for name in bundle.manifest.modalities:
        if name in items.modalities:
            has_content |= ~np.isnan(items.modalities[name]).all(axis=1)
    is_empty, wanted = is_new & ~has_content, " or ".join(bundle.manifest.modalities)
    count = int(is_empty.sum())
    if count and skip.empty:
        findings.notes.append(f"items without any features, left out: {count:,}")
    elif count:
        findings.faults.append(
            f"features: found none of {count:,} items: {_listed(items.ids, is_empty)}; "
            f"expected a row of {wanted} each, for nothing else "
            "tells where an item belongs; add it, or leave them out with --skip-empty"
        )
    return has_content


def _as_published(table: pa.Table, bundle: Bundle, findings: Findings) -> pa.Table:
    """Give the columns the types that the bundle's table has; add those that lack."""
    schema = _plain(_published(bundle.folder / "items.parquet")).schema
    for field in schema:
        if field.name in table.column_names:
            table = _cast(table, field, findings)
    manifest = bundle.manifest
    for name in dict.fromkeys([*schema.names, *manifest.attributes, *manifest.filters]):
        if name not in table.column_names:
            kind = schema.field(name).type if name in schema.names else pa.string()
            table = table.append_column(name, pa.nulls(len(table), kind))
    told, filtered = manifest.attributes, manifest.filters
    for names, is_fit in ((told, is_tellable), (filtered, is_filterable)):
        findings.faults += [
            f"items, column {name}: found type {table.schema.field(name).type}, which bundle "
            f"{bundle.version} cannot tell or filter by; write it as text"
            for name in names
            if not is_fit(table.schema.field(name).type)
        ]
    return table


def _cast(table: pa.Table, field: pa.Field, findings: Findings) -> pa.Table:
    place = table.column_names.index(field.name)
    column = undictionaried(table[field.name])
    if is_text(column.type) and not is_text(field.type):
        is_empty = pc.equal(column, "")  # how a CSV says that there is nothing
        column = pc.if_else(is_empty, pa.scalar(None, column.type), column)
    try:
        return table.set_column(place, field.name, column.cast(field.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        said = " ".join(str(error).split())
        findings.faults.append(
            f"items, column {field.name}: found {column.type}, expected what can be read as "
            f"{field.type}, as the bundle's is ({said}); correct it"
        )
        return table


def _published(path: Path) -> pa.Table:
    try:
        return read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise FaultyBundleError(
            f"bundle {path.parent}", [f"{path.name}: cannot be read ({error})"]
        ) from error


def _plain(table: pa.Table) -> pa.Table:
    for place, name in enumerate(table.column_names):
        table = table.set_column(place, name, undictionaried(table[name]))
    return table


def _listed(ids: Sequence[str], is_meant: NDArray[np.bool_]) -> str:
    rows = np.flatnonzero(is_meant)
    more = " ..." if len(rows) > TOLD else ""
    return ", ".join(quoted(ids[row]) for row in rows[:TOLD]) + more
