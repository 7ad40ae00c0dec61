"""Report of a published training run, read from its bundle."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.bundle.reader import Bundle, open_bundle
from index.bundle.registry import BundleRegistry
from index.cluster_map import ClusterMap
from index.cluster_map_io import join
from trainer.esans.stats import category_column, first_labels, singleton_share, title_column
from trainer.metrics import COUNTS, COVERAGE_COUNT, MIN_CASES
from trainer.report.figures import (
    METHOD_NAMES,
    buckets_figure,
    curve_figure,
    methods_figure,
    sizes_figure,
)
from trainer.report.item_map import map_figure, project_items
from trainer.report.page import render_page, validate_output_path, write_page

TEMPLATE = Path(__file__).with_name("run.html.j2")
BUCKETS = ("head", "torso", "tail", "cold")

Labels = Sequence[str | None]  # the category of each item, by row


def write_run_report(bundles: Path, version: str | None, out: Path) -> None:
    """Write the report of a published version, or of the current one if it is None.

    Raises:
        NoBundleError: the version does not exist, or nothing is published.
        InvalidBundleError: the bundle fails its validation.
        ConfigError: `out` cannot be written.
    """
    validate_output_path(out)
    registry = BundleRegistry(bundles)
    folder = registry.current() if version is None else registry.path_of(version)
    write_page(render_run_report(open_bundle(folder)), out)


def render_run_report(bundle: Bundle) -> str:
    """Render the report of a bundle as HTML."""
    manifest = bundle.manifest
    attributes = pq.read_table(bundle.folder / "items.parquet")
    category = category_column(attributes, None)
    labels = None if category is None else first_labels(attributes, category)
    training = manifest.run.get("training", {})
    has_curve = bool(training.get("curve"))
    return render_page(
        TEMPLATE,
        manifest=manifest,
        version=bundle.version,
        created_at=f"{manifest.created_at[:19].replace('T', ' ')} UTC",
        modalities=", ".join(f"{name} [{dim}]" for name, dim in manifest.modalities.items()),
        training=training,
        curve=curve_figure(training["curve"], int(training["best_epoch"])) if has_curve else None,
        category=None if category is None else repr(category),
        index_rows=[(f"@{count}", share) for count, share in sorted(manifest.index.recall.items())],
        settings=flatten_settings(manifest.run.get("config", {})),
        **metric_values(manifest.metrics.get("test", {})),
        **item_values(bundle, attributes, labels),
        **cluster_values(load_cluster_map(bundle), labels),
    )


def metric_values(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return template values for the metrics of the model and its baselines, also by bucket."""
    methods = [name for name in METHOD_NAMES if "model" in report and name in report]
    by_method = {method: report[method] for method in methods}
    names = [f"{kind}@{count}" for kind in ("recall", "ndcg") for count in COUNTS]
    names.append(f"coverage@{COVERAGE_COUNT}")
    all_buckets = report.get("buckets", {})
    buckets = {method: all_buckets[method] for method in METHOD_NAMES if method in all_buckets}
    model = buckets.get("model", {})
    bucket_names = [bucket for bucket in BUCKETS if bucket in model]
    return {
        "report": report,
        "methods": methods_figure(by_method) if by_method else None,
        "metric_names": names,
        "metric_rows": [
            [METHOD_NAMES[method], *(metrics.get(name) for name in names)]
            for method, metrics in by_method.items()
        ],
        "buckets": buckets_figure(buckets, bucket_names) if model else None,
        "small_buckets": [b for b in bucket_names if int(model[b]["targets"]) < MIN_CASES],
        "min_cases": MIN_CASES,
    }


def item_values(bundle: Bundle, attributes: pa.Table, labels: Labels | None) -> dict[str, Any]:
    """Return template values for the map of the item vectors."""
    item_map = project_items(bundle.vectors, seed=0)
    column = attributes[title_column(attributes)]
    titles = [str(title) for title in column.take(item_map.rows).to_pylist()]
    clusters = load_cluster_map(bundle)
    codes = clusters.codes1[item_map.rows].tolist() if clusters else None
    shown_labels = None if labels is None else [labels[row] for row in item_map.rows]
    return {
        "item_map": map_figure(item_map, titles, codes, shown_labels),
        "num_shown": len(item_map.rows),
        "method": item_map.method,
    }


def cluster_values(clusters: ClusterMap | None, labels: Labels | None) -> dict[str, Any]:
    """Return template values for the cluster map of the sampler."""
    if clusters is None:
        return {"sizes": None}
    sizes = clusters.layout.cluster_sizes
    cells = np.unique(clusters.layout.cells, return_counts=True)[1]
    levels = {"level-1 clusters": sizes[sizes > 0], "cells (both levels)": cells}
    return {
        "sizes": sizes_figure(sizes.tolist(), _top_labels(clusters.codes1, len(sizes), labels)),
        "cluster_rows": [
            (name, len(counts), int(counts.min()), int(np.median(counts)), int(counts.max()))
            for name, counts in levels.items()
        ],
        "singleton_share": singleton_share(clusters.layout.cells),
    }


def _top_labels(codes: NDArray[np.int32], num_clusters: int, labels: Labels | None) -> list[str]:
    """Describe each cluster by its most frequent category."""
    counters: list[Counter[str]] = [Counter() for _ in range(num_clusters)]
    for code, label in zip(codes.tolist(), labels or (), strict=labels is not None):
        counters[code][label or "no category"] += 1
    return [
        f"{top[0][1] / counter.total():.0%} {top[0][0]}" if (top := counter.most_common(1)) else ""
        for counter in counters
    ]


def load_cluster_map(bundle: Bundle) -> ClusterMap | None:
    """Return the cluster map of a bundle in row order, None if it has none.

    Items appended after training form a cluster of their own.
    """
    clusters, id_hashes = bundle.clusters, bundle.items.hashes_by_row()
    if clusters is None or np.array_equal(clusters.id_hashes, id_hashes):
        return clusters
    return join(clusters, id_hashes)


def flatten_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested settings to dotted names with values as in the TOML file."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten_settings(value, f"{prefix}{name}.")
        elif isinstance(value, bool):
            flat[f"{prefix}{name}"] = str(value).lower()
        else:
            flat[f"{prefix}{name}"] = str(value) if value not in ("", [], None) else "(empty)"
    return flat
