"""The report of one published run, all of it read from its bundle."""

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
from trainer.esans.stats import category_column, first_labels, share_alone, title_column
from trainer.metrics import COUNTS, COVERAGE_COUNT, MIN_CASES
from trainer.report.figures import NAMES, buckets_figure, curve_figure, methods_figure, sizes_figure
from trainer.report.item_map import lay_out, map_figure
from trainer.report.page import render_page, validate_place, write_page

TEMPLATE = Path(__file__).with_name("run.html.j2")
BUCKETS = ("head", "torso", "tail", "cold")

Labels = Sequence[str | None]  # the category of each item, by row


def write_run_report(bundles: Path, version: str | None, out: Path) -> None:
    """Write the report of a published run; of the current one where no version is named.

    Raises NoBundleError, InvalidBundleError; ConfigError if `out` is no place for it.
    """
    validate_place(out)
    registry = BundleRegistry(bundles)
    folder = registry.current() if version is None else registry.path_of(version)
    write_page(render_run_report(open_bundle(folder)), out)


def render_run_report(bundle: Bundle) -> str:
    """Return the page of a published run."""
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
        modalities=", ".join(f"{name} [{width}]" for name, width in manifest.modalities.items()),
        training=training,
        curve=curve_figure(training["curve"], int(training["best_epoch"])) if has_curve else None,
        category=None if category is None else repr(category),
        settings=flattened(manifest.run.get("config", {})),
        **metric_values(manifest.metrics.get("test", {})),
        **item_values(bundle, attributes, labels),
        **cluster_values(map_of_all(bundle), labels),
    )


def metric_values(report: Mapping[str, Any]) -> dict[str, Any]:
    """Gather the metrics of the model beside its baselines, also by popularity."""
    found = {name: report[name] for name in NAMES if "model" in report and name in report}
    names = [f"{kind}@{count}" for kind in ("recall", "ndcg") for count in COUNTS]
    names.append(f"coverage@{COVERAGE_COUNT}")
    in_buckets = report.get("buckets", {})
    buckets = {name: in_buckets[name] for name in NAMES if name in in_buckets}
    model = buckets.get("model", {})
    bucket_names = [name for name in BUCKETS if name in model]
    return {
        "report": report,
        "methods": methods_figure(found) if found else None,
        "metric_names": names,
        "metric_rows": [
            [NAMES[name], *(metrics.get(one) for one in names)] for name, metrics in found.items()
        ],
        "buckets": buckets_figure(buckets, bucket_names) if model else None,
        "small_buckets": [n for n in bucket_names if int(model[n]["targets"]) < MIN_CASES],
        "min_cases": MIN_CASES,
    }


def item_values(bundle: Bundle, attributes: pa.Table, labels: Labels | None) -> dict[str, Any]:
    """Draw the item vectors in the plane."""
    drawn = lay_out(bundle.vectors, seed=0)
    column = attributes[title_column(attributes)]
    titles = [str(one) for one in column.take(drawn.rows).to_pylist()]
    found = map_of_all(bundle)
    codes = found.codes1[drawn.rows].tolist() if found else None
    chosen = None if labels is None else [labels[row] for row in drawn.rows]
    return {
        "item_map": map_figure(drawn, titles, codes, chosen),
        "shown_count": len(drawn.rows),
        "method": drawn.how,
    }


def cluster_values(found: ClusterMap | None, labels: Labels | None) -> dict[str, Any]:
    """Draw and count the clusters that negatives were drawn from."""
    if found is None:
        return {"sizes": None}
    sizes = found.layout.cluster_sizes
    cells = np.unique(found.layout.cells, return_counts=True)[1]
    counted = {"level-1 clusters": sizes[sizes > 0], "cells (both levels)": cells}
    return {
        "sizes": sizes_figure(sizes.tolist(), _commonest(found.codes1, len(sizes), labels)),
        "cluster_rows": [
            (name, len(one), int(one.min()), int(np.median(one)), int(one.max()))
            for name, one in counted.items()
        ],
        "alone_share": share_alone(found.layout.cells),
    }


def _commonest(codes: NDArray[np.int32], count: int, labels: Labels | None) -> list[str]:
    """Describe each cluster by the most frequent category in it."""
    counters: list[Counter[str]] = [Counter() for _ in range(count)]
    for code, label in zip(codes.tolist(), labels or (), strict=labels is not None):
        counters[code][label or "no category"] += 1
    return [
        f"{found[0][1] / one.total():.0%} {found[0][0]}" if (found := one.most_common(1)) else ""
        for one in counters
    ]


def map_of_all(bundle: Bundle) -> ClusterMap | None:
    """Return the bundle's map, in the order of its items.

    Those that were added since the training are a cluster of their own.
    """
    found, by_row = bundle.clusters, bundle.items.hashes_by_row()
    if found is None or np.array_equal(found.id_hashes, by_row):
        return found
    return join(found, by_row)


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested settings to dotted names, as one would write them in the file."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        elif isinstance(value, bool):
            flat[f"{prefix}{name}"] = str(value).lower()
        else:
            flat[f"{prefix}{name}"] = str(value) if value not in ("", [], None) else "(empty)"
    return flat
