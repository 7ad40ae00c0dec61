"""Add items to a bundle between two trainings: encoded by content, appended, published as new.

What the trainer made stays as it was: towers, histories, cluster map, the vectors of all items
that were there. A new item has no training positives; the map does not know it.
"""

import shutil
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from index.ann.tuning import TUNING_QUERIES, extend_item_index
from index.arrays import Floats, Rows
from index.bundle.manifest import AddedFacts, IndexFacts
from index.bundle.reader import Bundle, open_bundle
from index.bundle.registry import BundleRegistry
from index.bundle.self_test import open_self_test
from index.cluster_map import CLUSTER_FILES
from index.encoders import ItemEncoder
from index.errors import BundleError, FaultyBundleError
from index.metadata import ItemMetadata
from index.publish.new_items import (
    NewItems,
    Skip,
    extend_items_table,
    read_new_items,
)
from index.publish.writer import Contents, add_measures, write_bundle

CARRIED = ("user_encoder.onnx", "item_encoder.onnx", "towers.safetensors", *CLUSTER_FILES)
CHUNK = 4_096  # items encoded at once
UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Added:
    """What was published: `version`, extended from `base`; the same where there was no item."""

    version: str
    base: str
    count: int
    index: IndexFacts
    notes: list[str]


def add_items(
    shelf: BundleRegistry,
    folder: Path,
    now: datetime,
    *,
    version: str | None = None,
    skip: Skip = Skip(),  # noqa: B008  # a tuple, which nobody can change
) -> Added:
    """Publish a bundle with more items than another one, the current one if none is named.

    It is not made current. Raises NoBundleError, FaultyBundleError, DatasetError, BundleError
    if the bundle cannot encode items, OSError if the disk refuses: nothing is published then.
    """
    base = open_bundle(shelf.path_of(version) if version else shelf.current())
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
    with shelf.stage() as staged:
        write_extended(staged, base, new, vectors, now)
        opened = open_bundle(staged)
        published = shelf.publish(staged, now)
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
        raise FaultyBundleError(
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
    extend_items_table(base.folder / "items.parquet", new.table, staged / "items.parquet")
    self_test = open_self_test(base.folder / "probe.npz")
    manifest, count = base.manifest, len(base.items)
    metadata = ItemMetadata(manifest.attributes, base.attributes, manifest.filters, base.filters)
    contents = Contents(
        item_ids=[*base.items.ids_of(np.arange(count, dtype=np.int32)), *new.ids],
        vectors=np.concatenate([base.vectors, vectors]),
        counts=np.concatenate([base.counts, np.zeros(len(new.ids), dtype=np.int64)]),
        histories=base.histories,
        tuning_histories=[*self_test.histories, *histories_to_tune_on(base)],
        probe_histories=self_test.histories,
        probe_queries=self_test.queries,
        metadata=metadata.extended(new.metadata, count),
    )
    made_at = now.isoformat(timespec="seconds")
    added = [*manifest.added, AddedFacts(to=base.version, count=len(new.ids), at=made_at)]
    facts = manifest.model_copy(update={"made_at": made_at, "added": added})
    seed = int(manifest.run.get("config", {}).get("seed", 0))
    saved, factory = base.folder / "items.faiss", manifest.index.factory
    write_bundle(staged, contents, facts, partial(extend_item_index, saved, factory, seed=seed))
    add_measures(staged, manifest.measures)


def histories_to_tune_on(base: Bundle) -> list[Rows]:
    """Return the histories of known users, evenly chosen, none empty."""
    stored = base.histories
    if stored is None:
        return []
    users = np.flatnonzero(np.diff(stored.offsets))
    places = np.linspace(0, len(users) - 1, min(TUNING_QUERIES, len(users))).astype(np.int64)
    begins, ends = stored.offsets[users[places]], stored.offsets[users[places] + 1]
    return [stored.rows[begin:end] for begin, end in zip(begins, ends, strict=True)]
