"""Add items to a bundle between two trainings: read, encoded, appended, published as new.

Items are read as the trainer reads them and held against the bundle. What the trainer made stays
as it was: towers, histories, cluster map, the vectors of all items that were there. A new item
has no training positives; the map does not know it.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.ann.tuning import TUNING_QUERIES, extend_item_index
from index.arrays import Floats, Rows
from index.bundle.manifest import AddedFacts, IndexFacts
from index.bundle.reader import Bundle, open_bundle
from index.bundle.registry import BundleRegistry
from index.bundle.self_test import open_self_test
from index.cluster_map import CLUSTER_FILES
from index.encoders import ItemEncoder
from index.errors import BundleError, DatasetError, InvalidBundleError
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
from index.publish.writer import Contents, add_metrics, write_bundle

CARRIED = ("user_encoder.onnx", "item_encoder.onnx", "towers.safetensors", *CLUSTER_FILES)
CHUNK = 4_096  # items encoded at once
UNIT_TOLERANCE = 1e-3
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


@dataclass(frozen=True)
class Added:
    """What was published: `version`, extended from `base`; the same where there was no item."""

    version: str
    base: str
    count: int
    index: IndexFacts
    notes: list[str]


def add_items(
    registry: BundleRegistry,
    folder: Path,
    now: datetime,
    *,
    version: str | None = None,
    skip: Skip = Skip(),  # noqa: B008  # a tuple, which nobody can change
) -> Added:
    """Publish a bundle with more items than another one, the current one if none is named.

    It is not made current. Raises NoBundleError, InvalidBundleError, DatasetError, BundleError
    if the bundle cannot encode items, OSError if the disk refuses: nothing is published then.
    """
    base = open_bundle(registry.path_of(version) if version else registry.current())
    encoder = base.item_encoder
    if encoder is None:
        raise BundleError(
            f"bundle {base.folder}: has no item encoder, expected item_encoder.onnx; a bundle "
            "has one if it was trained on features: add some, and train"
        )
    new = read_new_items(folder, base, skip)
    if not new.ids:
        return Added(base.version, base.version, 0, base.manifest.index, new.notes)
    vectors = encode(encoder, new, base)
    with registry.stage() as staged:
        write_extended(staged, base, new, vectors, now)
        opened = open_bundle(staged)
        published = registry.publish(staged, now)
    return Added(published, base.version, len(new.ids), opened.manifest.index, new.notes)


def encode(encoder: ItemEncoder, new: NewItems, base: Bundle) -> Floats:
    """Encode the new items; [items, dim] unit rows."""
    count = len(new.ids)
    parts = [
        encoder.encode(
            {name: rows[begin : begin + CHUNK] for name, rows in new.features.items()},
            min(CHUNK, count - begin),
        )
        for begin in range(0, count, CHUNK)
    ]
    vectors = np.concatenate(parts)
    lengths = np.linalg.norm(vectors, axis=1)
    if not (np.abs(lengths - 1) < UNIT_TOLERANCE).all():
        raise InvalidBundleError(
            f"bundle {base.folder}",
            ["item_encoder.onnx: made a vector that is not of length 1; train again"],
        )
    return vectors


def write_extended(
    staged: Path, base: Bundle, new: NewItems, vectors: Floats, now: datetime
) -> None:
    """Write the bundle with the new items behind its own into a staged folder."""
    for name in CARRIED:
        if name in base.manifest.files:
            shutil.copyfile(base.folder / name, staged / name)
    table = pa.concat_tables([_published(base), new.table], promote_options="default")
    pq.write_table(table, staged / "items.parquet")
    self_test = open_self_test(base.folder / "self_test.npz")
    manifest, count = base.manifest, len(base.items)
    metadata = ItemMetadata(manifest.attributes, base.attributes, manifest.filters, base.filters)
    contents = Contents(
        item_ids=[*base.items.ids_of(np.arange(count, dtype=np.int32)), *new.ids],
        vectors=np.concatenate([base.vectors, vectors]),
        counts=np.concatenate([base.counts, np.zeros(len(new.ids), dtype=np.int64)]),
        histories=base.histories,
        tuning_histories=[*self_test.histories, *histories_to_tune_on(base)],
        self_test_histories=self_test.histories,
        self_test_queries=self_test.queries,
        metadata=metadata.extended(new.metadata, count),
    )
    created_at = now.isoformat(timespec="seconds")
    added = [*manifest.added, AddedFacts(to=base.version, count=len(new.ids), at=created_at)]
    facts = manifest.model_copy(update={"created_at": created_at, "added": added})
    seed = int(manifest.run.get("config", {}).get("seed", 0))
    saved, factory = base.folder / "items.faiss", manifest.index.factory
    write_bundle(staged, contents, facts, partial(extend_item_index, saved, factory, seed=seed))
    add_metrics(staged, manifest.metrics)


def histories_to_tune_on(base: Bundle) -> list[Rows]:
    """Return the histories of known users, evenly chosen, none empty."""
    stored = base.histories
    if stored is None:
        return []
    users = np.flatnonzero(np.diff(stored.offsets))
    places = np.linspace(0, len(users) - 1, min(TUNING_QUERIES, len(users))).astype(np.int64)
    begins, ends = stored.offsets[users[places]], stored.offsets[users[places] + 1]
    return [stored.rows[begin:end] for begin, end in zip(begins, ends, strict=True)]


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
    published = PublishedColumns(bundle.manifest.attributes, list(bundle.manifest.filters))
    return NewItems(
        ids=[items.ids[row] for row in chosen],
        features={name: rows[chosen] for name, rows in items.modalities.items()},
        metadata=item_metadata(table, published),
        table=table,
        notes=findings.notes,
    )


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
    schema = _published(bundle).schema
    for field in schema:
        if field.name in table.column_names:
            table = _cast(table, field, findings)
    manifest = bundle.manifest
    for name in dict.fromkeys([*schema.names, *manifest.attributes, *manifest.filters]):
        if name not in table.column_names:
            kind = schema.field(name).type if name in schema.names else pa.string()
            table = table.append_column(name, pa.nulls(len(table), kind))
    for names, is_fit in ((manifest.attributes, is_tellable), (manifest.filters, is_filterable)):
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


def _published(bundle: Bundle) -> pa.Table:
    """Read the table of the bundle's items, its columns written out."""
    try:
        table = read_table(bundle.folder / "items.parquet")
    except (OSError, pa.ArrowException) as error:
        raise InvalidBundleError(
            f"bundle {bundle.folder}", [f"items.parquet: cannot be read ({error})"]
        ) from error
    for place, name in enumerate(table.column_names):
        table = table.set_column(place, name, undictionaried(table[name]))
    return table


def _listed(ids: Sequence[str], is_meant: NDArray[np.bool_]) -> str:
    rows = np.flatnonzero(is_meant)
    more = " ..." if len(rows) > TOLD else ""
    return ", ".join(quoted(ids[row]) for row in rows[:TOLD]) + more
