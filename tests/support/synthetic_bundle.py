"""Synthetic bundle without training: even users like even items, the encoder is a mean.

Even items point along axis 0, odd items along axis 1, plus noise. The nearest items of an even
history are therefore the even ones, in an order that brute force can verify.
"""

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index.ann.tuning import build_item_index
from index.arrays import save_array
from index.bundle.manifest import MANIFEST, DatasetFacts, RunFacts, measure_files
from index.bundle.reader import StoredHistories
from index.bundle.registry import BundleRegistry
from index.cluster_map import ClusterMap
from index.cluster_map_io import build_metadata, save_cluster_map
from index.ids import build_id_table, hash_ids
from index.metadata import NO_METADATA, Column, ItemMetadata, build_attributes, build_filters
from index.publish.writer import VECTORS, Contents, write_bundle
from tests.support.synthetic_towers import (
    DIM,
    MODALITIES,
    write_content_encoder,
    write_mean_encoder,
)

NOW = datetime(2026, 1, 31, 10, 15, tzinfo=UTC)
ITEM_COUNT, HISTORY_LENGTH = 40, 10


def item_vectors(count=ITEM_COUNT, seed=0):
    """[count, DIM] unit rows, even items around one axis, odd ones around another."""
    own = np.random.default_rng(seed).normal(scale=0.2, size=(count, DIM))
    own[np.arange(count), np.arange(count) % 2] += 1
    return (own / np.linalg.norm(own, axis=1, keepdims=True)).astype(np.float32)


def mean_query(vectors, history_rows):
    """Return the query vector of the mean encoder."""
    total = vectors[np.asarray(history_rows)[::-1][:HISTORY_LENGTH]].sum(axis=0)
    return (total / np.linalg.norm(total)).astype(np.float32)


def handmade_map(count=ITEM_COUNT, prefix="item", shift=0, ids=None):
    """Row i is in cluster (i + shift) % 4, cell (i // 4) % 3; centroids are 0, 1, 3 and 6."""
    ids = ids or [f"{prefix}-{row}" for row in range(count)]
    rows = np.arange(len(ids))
    return ClusterMap(
        codes1=((rows + shift) % 4).astype(np.int32),
        codes2=(rows // 4 % 3).astype(np.int32),
        centroids=np.array([[0], [1], [3], [6]], dtype=np.float32),
        id_hashes=hash_ids(item_id.encode() for item_id in ids),
        temperature_share=0.5,
        made={"at": NOW.isoformat(), "turn": shift},
    )


def item_metadata(count=ITEM_COUNT, more_columns=MappingProxyType({})):
    """Item metadata: title, parity, hundred and tags, and `odd` for odd items.

    Item 3 has no tags, no item has a `mood`.
    """
    rows = np.arange(count, dtype=np.int32)
    tags = [
        (row, value_index)
        for row in rows.tolist()
        if row != 3
        for value_index in (row % 3, row % 5)
    ]
    tagged, value_indices = np.array(tags, dtype=np.int32).T
    filters = build_filters(
        {
            "parity": Column(["even", "odd"], rows, rows % 2),
            "hundred": Column(["0", "1"], rows, np.minimum(rows // 100, 1)),
            "tags": Column([f"tag {tag}" for tag in range(5)], tagged, value_indices),
            "odd": Column(["true"], rows[1::2], np.zeros(len(rows[1::2]), dtype=np.int32)),
            **more_columns,
        }
    )
    attributes = build_attributes(
        {"title": f"thing {row} \N{SNOWMAN}", "odd": True if row % 2 else None}
        for row in range(count)
    )
    counts = {"mood": 0, **filters.value_counts()}
    return ItemMetadata(["title", "odd"], attributes, counts, filters)


def write_handmade(
    folder: Path,
    count=ITEM_COUNT,
    seed=0,
    with_histories=True,
    prefix="item",
    clusters=None,
    with_metadata=True,
    with_content=False,
    ids=None,
    more_columns=MappingProxyType({}),
):
    """Write a bundle into a staged folder; user-0 (even) and user-1 (odd) have three items each."""
    ids = ids or [f"{prefix}-{row}" for row in range(count)]
    count = len(ids)
    vectors = item_vectors(count, seed)
    write_mean_encoder(folder / "user_encoder.onnx")
    if with_content:
        write_content_encoder(folder / "item_encoder.onnx")
    (folder / "towers.safetensors").write_bytes(b"")
    pq.write_table(pa.table({"item_id": ids}), folder / "items.parquet")
    rows = np.array([0, 2, 4, 1, 3, 5], dtype=np.int32)
    histories = StoredHistories(
        build_id_table(["user-0", "user-1", "user-2"]), np.array([0, 3, 6, 6]), rows
    )
    query_histories = [rows[:3], rows[3:]]
    contents = Contents(
        item_ids=ids,
        vectors=vectors,
        counts=np.arange(count, 0, -1, dtype=np.int64),  # item-0 is the most popular
        histories=histories if with_histories else None,
        tuning_histories=query_histories,
        self_test_histories=query_histories,
        self_test_queries=np.stack([mean_query(vectors, history) for history in query_histories]),
        metadata=item_metadata(count, more_columns) if with_metadata else NO_METADATA,
    )
    dataset = DatasetFacts(
        fingerprint="by hand",
        split="none",
        is_ordered=True,
        users=3,
        interactions=6,
        training_interactions=6,
        notes=[],
    )
    modalities, maps = MODALITIES if with_content else {}, []
    if clusters:
        save_cluster_map(clusters, folder)
        maps = [build_metadata(clusters).model_dump(mode="json")]
    facts = RunFacts(
        created_at=NOW.isoformat(),
        name="handmade",
        history_length=HISTORY_LENGTH,
        modalities=modalities,
        dataset=dataset,
        cluster_maps=maps,
        run={},
        libraries={},
    )
    save_array(folder / VECTORS, vectors)
    return write_bundle(folder, contents, facts, partial(build_item_index, seed=seed))


def publish_handmade(bundles: Path, now=NOW, **options):
    """Publish a synthetic bundle and make it current; return its version."""
    registry = BundleRegistry(bundles)
    with registry.stage() as staged:
        write_handmade(staged, **options)
        version = registry.publish(staged, now)
    registry.make_current(version)
    return version


def retrieve_single(retriever, query, denied=None, **more):
    """Return the result of a single query."""
    (result,) = retriever.retrieve([query], denied, **more)
    return result


def update_digests(folder):
    """Rewrite the manifest with the current sizes and digests of all files."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {name: info.model_dump() for name, info in measure_files(folder).items()}
    (folder / MANIFEST).write_text(json.dumps(manifest))
