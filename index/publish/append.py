"""Add items to a bundle without training: read, encode, append and publish a new version.

Items are read like the trainer's and validated against the bundle. Towers, histories, cluster map
and existing item vectors stay unchanged. A new item has no training positives and no cluster.
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
from index.arrays import Features, Floats, Rows, save_rows
from index.bundle.manifest import AddedFacts, IndexFacts
from index.bundle.reader import Bundle, open_bundle
from index.bundle.registry import BundleRegistry
from index.bundle.self_test import open_self_test
from index.cluster_map import CLUSTER_FILES
from index.encoders import ItemEncoder
from index.errors import BundleError, DatasetError, InvalidBundleError
from index.ingest.changes import detect_changes
from index.ingest.items import Items, read_items
from index.ingest.published_columns import (
    PublishedColumns,
    is_filterable,
    is_json_serializable,
    item_metadata,
)
from index.ingest.tables import Findings, decode_dictionary, is_text, quote, read_table
from index.metadata import ItemMetadata
from index.publish.writer import VECTORS, Contents, add_metrics, write_bundle

COPIED_FILES = ("user_encoder.onnx", "item_encoder.onnx", "towers.safetensors", *CLUSTER_FILES)
CHUNK = 4_096  # items per encoder call
UNIT_TOLERANCE = 1e-3
MAX_LISTED_IDS = 20  # per message


class Skip(NamedTuple):
    """Items to skip instead of raising an error: already in the bundle, or without features."""

    known: bool = False
    empty: bool = False


@dataclass(frozen=True)
class NewItems:
    """New items in table order.

    Attributes:
        features: modality -> [items, width]; missing rows are NaN.
        metadata: Attributes and filters, as in the bundle.
        table: All columns, with the types of the bundle's table.
        notes: Messages for the operator.
    """

    ids: list[str]
    features: dict[str, Features]
    metadata: ItemMetadata
    table: pa.Table
    notes: list[str]


@dataclass(frozen=True)
class AddedItems:
    """Result: `version` extends `base`; both are equal if there was no new item."""

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
    skip: Skip = Skip(),  # noqa: B008  # immutable
) -> AddedItems:
    """Publish a bundle that extends another one; it does not become current.

    On an error, nothing is published.

    Args:
        registry: Registry of the bundles.
        folder: Folder of the new items.
        now: Time of the new version.
        version: Bundle to extend; None: the current one.
        skip: Items to skip instead of raising an error.

    Raises:
        NoBundleError: The bundle to extend does not exist.
        InvalidBundleError: The bundle to extend is invalid.
        DatasetError: The items are invalid.
        BundleError: The bundle has no item encoder.
        OSError: A file cannot be written.
    """
    base = open_bundle(registry.path_of(version) if version else registry.current())
    encoder = base.item_encoder
    if encoder is None:
        raise BundleError(
            f"bundle {base.folder}: has no item encoder, expected item_encoder.onnx; train on "
            "item features"
        )
    new = read_new_items(folder, base, skip)
    if not new.ids:
        return AddedItems(base.version, base.version, 0, base.manifest.index, new.notes)
    vectors = encode(encoder, new, base)
    with registry.stage() as staged:
        write_extended(staged, base, new, vectors, now)
        opened = open_bundle(staged)
        published = registry.publish(staged, now)
    return AddedItems(published, base.version, len(new.ids), opened.manifest.index, new.notes)


def encode(encoder: ItemEncoder, new: NewItems, base: Bundle) -> Floats:
    """Encode the new items; [items, dim], unit norm."""
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
            ["item_encoder.onnx: found a vector that is not of unit norm; train again"],
        )
    return vectors


def write_extended(
    staged: Path, base: Bundle, new: NewItems, vectors: Floats, now: datetime
) -> None:
    """Write the bundle with the new items appended into a staged folder."""
    for name in COPIED_FILES:
        if name in base.manifest.files:
            shutil.copyfile(base.folder / name, staged / name)
    table = pa.concat_tables([_read_published(base), new.table], promote_options="default")
    pq.write_table(table, staged / "items.parquet")
    self_test = open_self_test(base.folder / "self_test.npz")
    manifest, count = base.manifest, len(base.items)
    total = count + len(new.ids)
    metadata = ItemMetadata(manifest.attributes, base.attributes, manifest.filters, base.filters)
    contents = Contents(
        item_ids=[*base.items.ids_of(np.arange(count, dtype=np.int32)), *new.ids],
        vectors=save_rows(staged / VECTORS, (total, vectors.shape[1]), [base.vectors, vectors]),
        counts=np.concatenate([base.counts, np.zeros(len(new.ids), dtype=np.int64)]),
        histories=base.histories,
        tuning_histories=[*self_test.histories, *sample_tuning_histories(base)],
        self_test_histories=self_test.histories,
        self_test_queries=self_test.queries,
        metadata=metadata.concat(new.metadata, count),
    )
    created_at = now.isoformat(timespec="seconds")
    added = [*manifest.added, AddedFacts(to=base.version, count=len(new.ids), at=created_at)]
    facts = manifest.model_copy(update={"created_at": created_at, "added": added})
    seed = int(manifest.run.get("config", {}).get("seed", 0))
    saved, factory = base.folder / "items.faiss", manifest.index.factory
    write_bundle(staged, contents, facts, partial(extend_item_index, saved, factory, seed=seed))
    add_metrics(staged, manifest.metrics)


def sample_tuning_histories(base: Bundle) -> list[Rows]:
    """Return evenly spaced non-empty histories of known users."""
    stored = base.histories
    if stored is None:
        return []
    users = np.flatnonzero(np.diff(stored.offsets))
    positions = np.linspace(0, len(users) - 1, min(TUNING_QUERIES, len(users))).astype(np.int64)
    begins, ends = stored.offsets[users[positions]], stored.offsets[users[positions] + 1]
    return [stored.rows[begin:end] for begin, end in zip(begins, ends, strict=True)]


def read_new_items(folder: Path, bundle: Bundle, skip: Skip) -> NewItems:
    """Read a folder of items; raises DatasetError with every fault."""
    findings = Findings()
    if not folder.is_dir():
        raise DatasetError(str(folder), [f"{folder}: no such folder; pass the folder of the items"])
    with detect_changes(folder, findings):
        items = read_items(folder, findings)
    if items is None or findings.faults:
        raise DatasetError(str(folder), findings.faults)
    _compare_modalities(items, bundle, findings)
    is_new = _mark_new(items, bundle, skip, findings)
    has_content = _mark_with_content(items, bundle, is_new, skip, findings)
    chosen = np.flatnonzero(is_new & has_content)
    table = _cast_to_published(items.attributes, bundle, findings).take(chosen)
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
    """Report modalities that the item encoder does not have, or of another width."""
    expected = bundle.manifest.modalities
    for name, rows in items.modalities.items():
        if name not in expected:
            findings.faults.append(
                f"modality {name}: bundle {bundle.version} was not trained on it; expected "
                f"{', '.join(expected)}; remove it, or train on it"
            )
        elif rows.shape[1] != expected[name]:
            findings.faults.append(
                f"modality {name}: found width {rows.shape[1]}, expected {expected[name]} as in "
                f"bundle {bundle.version}; compute it as for training"
            )
    absent = sorted(set(expected) - set(items.modalities))
    if absent:
        findings.notes.append(f"modalities missing for all items: {', '.join(absent)}")


def _mark_new(items: Items, bundle: Bundle, skip: Skip, findings: Findings) -> NDArray[np.bool_]:
    is_new: NDArray[np.bool_] = bundle.items.rows_of(items.ids) < 0
    count = int((~is_new).sum())
    if count and skip.known:
        findings.notes.append(f"items already in the bundle, skipped: {count:,}")
    elif count:
        findings.faults.append(
            f"item_id: found {count:,} that are already in bundle {bundle.version}: "
            f"{_list_ids(items.ids, ~is_new)}; expected new items; skip them with --skip-known "
            "(the bundle keeps their data)"
        )
    return is_new


def _mark_with_content(
    items: Items, bundle: Bundle, is_new: NDArray[np.bool_], skip: Skip, findings: Findings
) -> NDArray[np.bool_]:
    """Return which items have features of a modality of the encoder."""
    has_content = np.zeros(len(items.ids), dtype=np.bool_)
    for name in bundle.manifest.modalities:
        if name in items.modalities:
            has_content |= ~np.isnan(items.modalities[name]).all(axis=1)
    is_empty, expected = is_new & ~has_content, " or ".join(bundle.manifest.modalities)
    count = int(is_empty.sum())
    if count and skip.empty:
        findings.notes.append(f"items without features, skipped: {count:,}")
    elif count:
        findings.faults.append(
            f"features: found none for {count:,} items: {_list_ids(items.ids, is_empty)}; "
            f"expected a row of {expected}; add it, or skip the items with --skip-empty"
        )
    return has_content


def _cast_to_published(table: pa.Table, bundle: Bundle, findings: Findings) -> pa.Table:
    """Cast the columns to the types of the bundle's table; add missing columns as null."""
    schema = _read_published(bundle).schema
    for field in schema:
        if field.name in table.column_names:
            table = _cast(table, field, findings)
    manifest = bundle.manifest
    for name in dict.fromkeys([*schema.names, *manifest.attributes, *manifest.filters]):
        if name not in table.column_names:
            kind = schema.field(name).type if name in schema.names else pa.string()
            table = table.append_column(name, pa.nulls(len(table), kind))
    for names, is_supported in (
        (manifest.attributes, is_json_serializable),
        (manifest.filters, is_filterable),
    ):
        findings.faults += [
            f"items, column {name}: found type {table.schema.field(name).type}, which cannot be an "
            "attribute or filter; write it as text"
            for name in names
            if not is_supported(table.schema.field(name).type)
        ]
    return table


def _cast(table: pa.Table, field: pa.Field, findings: Findings) -> pa.Table:
    if pa.types.is_null(field.type):
        return table  # the bundle has no value of it, so any type is right
    column_index = table.column_names.index(field.name)
    column = decode_dictionary(table[field.name])
    if is_text(column.type) and not is_text(field.type):
        is_empty = pc.equal(column, "")  # CSV has no null
        column = pc.if_else(is_empty, pa.scalar(None, column.type), column)
    try:
        return table.set_column(column_index, field.name, column.cast(field.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = " ".join(str(error).split())
        findings.faults.append(
            f"items, column {field.name}: found {column.type}, expected the bundle's type "
            f"{field.type} ({reason}); correct them"
        )
        return table


def _read_published(bundle: Bundle) -> pa.Table:
    """Read the items table of the bundle, without dictionary encoding."""
    try:
        table = read_table(bundle.folder / "items.parquet")
    except (OSError, pa.ArrowException) as error:
        raise InvalidBundleError(
            f"bundle {bundle.folder}", [f"items.parquet: cannot be read ({error})"]
        ) from error
    for column_index, name in enumerate(table.column_names):
        table = table.set_column(column_index, name, decode_dictionary(table[name]))
    return table


def _list_ids(ids: Sequence[str], is_listed: NDArray[np.bool_]) -> str:
    rows = np.flatnonzero(is_listed)
    more = " ..." if len(rows) > MAX_LISTED_IDS else ""
    return ", ".join(quote(ids[row]) for row in rows[:MAX_LISTED_IDS]) + more
