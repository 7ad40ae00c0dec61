"""Handmade bundles for reports; nothing is trained."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index.bundle.manifest import measure_files, write_manifest
from index.bundle.registry import BundleRegistry
from index.cluster_map import ClusterMap
from index.cluster_map_io import build_metadata, save_cluster_map
from index.ids import hash_ids
from tests.support.synthetic_bundle import NOW, write_handmade

COUNT = 60
MARKUP = "<script>alert('a title')</script> & co"
CURVE = [
    {"loss": 3.5, "recall@50": 0.25, "seconds": 2.0},
    {"loss": 2.5, "recall@50": 0.75, "seconds": 2.0},
    {"loss": 2.0, "recall@50": 0.5, "seconds": 2.0},
]
CONFIG = {"seed": 7, "training": {"sampler": {"name": "esans"}}}
HARDNESS = [{"step": 0, "positives": 0.5, "easy": 0.1}, {"step": 10, "positives": 0.6}]
TRAINING = {
    "curve": CURVE,
    "hardness": HARDNESS,
    "best_epoch": 2,
    "steps": 30,
    "validation_recall@50": 0.75,
}


def metrics_from(start):
    """Distinct metrics: start, start + 0.01, ..."""
    names = [f"{kind}@{count}" for kind in ("recall", "ndcg") for count in (20, 50, 200)]
    return {name: start + index / 100 for index, name in enumerate([*names, "coverage@50"])}


METRICS = {
    "cases": 500,
    "notes": [],
    "model": metrics_from(0.5),
    "popularity": metrics_from(0.1),
    "ease": metrics_from(0.3),
    "intervals": {"model": {"recall@20": [0.4712, 0.5288]}},
    "buckets": {
        method: {
            "head": {"targets": 301, "recall@50": start},
            "torso": {"targets": 250, "recall@50": start / 2},
            "tail": {"targets": 199},
            "cold": {"targets": 0},
        }
        for method, start in {"model": 0.8, "popularity": 0.4, "ease": 0.6}.items()
    },
}


def cluster_map():
    """Rows 0, 5, 10 ... are cluster 0, rows 1, 6, 11 ... cluster 1, and so on to 4."""
    rows = np.arange(COUNT)
    return ClusterMap(
        codes1=(rows % 5).astype(np.int32),
        codes2=(rows // 5 % 3).astype(np.int32),
        centroids=np.eye(5, dtype=np.float32),
        id_hashes=hash_ids(f"item-{row}".encode() for row in range(COUNT)),
    )


def publish(
    bundles, *, run=None, metrics=None, clusters=None, attributes=None, recall=None, now=NOW
):
    """Publish a handmade bundle with records of a run; return its version."""
    registry = BundleRegistry(bundles)
    with registry.stage() as staged:
        manifest = write_handmade(staged, count=COUNT)
        if attributes:
            ids = [f"item-{row}" for row in range(COUNT)]
            pq.write_table(pa.table({"item_id": ids, **attributes}), staged / "items.parquet")
        if clusters:
            save_cluster_map(clusters, staged)
        changes = {
            "run": run or {},
            "metrics": {"test": metrics} if metrics else {},
            "cluster_maps": [build_metadata(clusters).model_dump(mode="json")] if clusters else [],
            "index": manifest.index.model_copy(update={"recall": recall or {}}),
            "files": measure_files(staged),
        }
        write_manifest(staged, manifest.model_copy(update=changes))
        version = registry.publish(staged, now)
    registry.make_current(version)
    return version


def publish_complete(bundles, now=NOW):
    """Publish a bundle with everything that a report can show."""
    return publish(
        bundles,
        now=now,
        run={"config": CONFIG, "training": TRAINING},
        metrics=METRICS,
        clusters=cluster_map(),
        recall={50: 0.9876},
        attributes={
            "title": [MARKUP, *(f"item {row}" for row in range(1, COUNT))],
            "Genre": ["red|old" if row % 2 else "blue" for row in range(COUNT)],
        },
    )
