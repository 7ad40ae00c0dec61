"""Report of a published training run, read from its bundle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from index.bundle.manifest import Manifest, read_manifest
from index.bundle.reader import Bundle, open_bundle
from index.bundle.registry import BundleRegistry
from index.cluster_map import ClusterMap
from index.cluster_map_io import join
from index.errors import InvalidBundleError
from index.search.query import Query, SearchResult
from index.search.retriever import Retriever
from trainer.comparison import describe_refit, get_refit, has_same_test_cases
from trainer.esans.stats import category_column, first_labels, singleton_share, title_column
from trainer.metrics import METRIC_NAMES, MIN_CASES
from trainer.report.cluster_names import name_clusters
from trainer.report.figures import (
    METHOD_NAMES,
    buckets_figure,
    curve_figure,
    hardness_figure,
    methods_figure,
    sizes_figure,
)
from trainer.report.item_map import map_figure, project_items
from trainer.report.page import render_page, validate_output_path, write_page

TEMPLATE = Path(__file__).with_name("run.html.j2")
BUCKETS = ("head", "torso", "tail", "cold")

NUM_CANDIDATES = 10  # of an example
NUM_NAMED = 20  # largest clusters listed by name

Labels = Sequence[str | None]  # the category of each item, by row


def write_run_report(bundles: Path, version: str | None, out: Path | None) -> Path:
    """Write the report of a published version, or of the current one; return its path.

    Args:
        bundles: folder of bundles.
        version: None for the current one.
        out: file to write; None for one beside the bundle, which `prune` removes with it.

    Raises:
        NoBundleError: the version does not exist, or nothing is published.
        InvalidBundleError: the bundle fails its validation.
        ConfigError: `out` cannot be written.
    """
    registry = BundleRegistry(bundles)
    folder = registry.current() if version is None else registry.path_of(version)
    out = out or registry.report_path(folder.name)
    validate_output_path(out)
    tqdm.write(f"reading {folder}")
    write_page(render_run_report(open_bundle(folder), find_previous(registry, folder.name)), out)
    return out


def find_previous(registry: BundleRegistry, version: str) -> tuple[str, Manifest] | None:
    """Return the bundle published before a version that has a valid manifest, if any."""
    for earlier in reversed(registry.versions()):
        if earlier < version:
            try:
                return earlier, read_manifest(registry.folder / earlier)
            except InvalidBundleError:
                continue
    return None


def render_run_report(bundle: Bundle, previous: tuple[str, Manifest] | None = None) -> str:
    """Render the report of a bundle as HTML, with the difference to a previous one."""
    manifest = bundle.manifest
    attributes = pq.read_table(bundle.folder / "items.parquet")
    category = category_column(attributes, None)
    labels = None if category is None else first_labels(attributes, category)
    titles = load_titles(attributes)
    clusters = load_cluster_map(bundle)
    names = name_clusters(clusters, titles if has_titles(attributes) else None, labels)
    tqdm.write("drawing figures; the map of the items takes a few seconds")
    training = manifest.run.get("training", {})
    has_curve = bool(training.get("curve"))
    return render_page(
        TEMPLATE,
        manifest=manifest,
        version=bundle.version,
        created_at=f"{manifest.created_at[:19].replace('T', ' ')} UTC",
        modalities=", ".join(f"{name} [{dim}]" for name, dim in manifest.modalities.items()),
        training=training,
        refit=describe_refit(refit) if (refit := get_refit(manifest)) else None,
        curve=curve_figure(training["curve"], int(training["best_epoch"])) if has_curve else None,
        hardness=hardness_figure(training["hardness"]) if training.get("hardness") else None,
        category=None if category is None else repr(category),
        index_rows=[(f"@{count}", share) for count, share in sorted(manifest.index.recall.items())],
        settings=flatten_settings(manifest.run.get("config", {})),
        **metric_values(manifest.metrics.get("test", {})),
        **comparison_values(manifest, previous),
        **example_values(bundle, titles),
        **item_values(bundle, titles, labels, clusters, names),
        **cluster_values(clusters, names),
    )


def metric_values(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return template values for the metrics of the model and its baselines, also by bucket."""
    methods = [name for name in METHOD_NAMES if "model" in report and name in report]
    by_method = {method: report[method] for method in methods}
    all_buckets = report.get("buckets", {})
    buckets = {method: all_buckets[method] for method in METHOD_NAMES if method in all_buckets}
    model = buckets.get("model", {})
    bucket_names = [bucket for bucket in BUCKETS if bucket in model]
    intervals = report.get("intervals", {}).get("model", {})
    return {
        "report": report,
        "methods": methods_figure(by_method) if by_method else None,
        "metric_names": METRIC_NAMES,
        "metric_rows": [
            [METHOD_NAMES[method], *(metrics.get(name) for name in METRIC_NAMES)]
            for method, metrics in by_method.items()
        ],
        "interval_row": [
            "{:.4f} to {:.4f}".format(*intervals[name]) if name in intervals else None
            for name in METRIC_NAMES
        ],
        "buckets": buckets_figure(buckets, bucket_names) if model else None,
        "small_buckets": [b for b in bucket_names if int(model[b]["targets"]) < MIN_CASES],
        "min_cases": MIN_CASES,
    }


def comparison_values(manifest: Manifest, previous: tuple[str, Manifest] | None) -> dict[str, Any]:
    """Return template values for the difference to the previous bundle: counts and metrics."""
    if previous is None:
        return {"previous": None}
    version, before = previous
    new, old = _figures_of(manifest), _figures_of(before)
    rows = [(name, old[name], new[name], new[name] - old[name]) for name in new if name in old]
    return {
        "previous": version,
        "comparison_rows": rows,
        "is_previous_refit": get_refit(before) is not None,
        "is_same_data": has_same_test_cases(before, manifest),
    }


def _figures_of(manifest: Manifest) -> dict[str, int | float]:
    """Return the counts and test metrics of a bundle by display name."""
    data, model = manifest.dataset, manifest.metrics.get("test", {}).get("model", {})
    counts = {
        "items": manifest.items,
        "users": data.users,
        "interactions": data.interactions,
        "training interactions": data.training_interactions,
    }
    return counts | {name: model[name] for name in METRIC_NAMES if name in model}


def example_values(bundle: Bundle, titles: Sequence[str]) -> dict[str, Any]:
    """Return template values for candidates of a popular, a less popular and a rare item.

    The histories are of one item each: those of users would be personal data in a file to share.
    """
    by_popularity = np.argsort(-bundle.counts, kind="stable")
    size = len(by_popularity)
    rows = by_popularity[sorted({0, size // 10, size // 2})].tolist()
    ids = bundle.items.ids_of(rows)
    results = Retriever(bundle).retrieve([Query(NUM_CANDIDATES, history=[each]) for each in ids])
    return {
        "example_titles": [titles[row] for row in rows],
        "example_rows": [
            (rank, *(_render_candidate(result, rank - 1, titles) for result in results))
            for rank in range(1, 1 + max(len(result.rows) for result in results))
        ],
    }


def _render_candidate(result: SearchResult, position: int, titles: Sequence[str]) -> str:
    if position >= len(result.rows) or result.scores is None:
        return ""
    return f"{titles[result.rows[position]]} ({result.scores[position]:.3f})"


def item_values(
    bundle: Bundle,
    titles: Sequence[str],
    labels: Labels | None,
    clusters: ClusterMap | None,
    names: Sequence[str],
) -> dict[str, Any]:
    """Return template values for the map of the item vectors."""
    item_map = project_items(bundle.vectors, seed=0)
    codes = clusters.codes1[item_map.rows].tolist() if clusters else None
    shown_labels = None if labels is None else [labels[row] for row in item_map.rows]
    shown_titles = [titles[row] for row in item_map.rows]
    return {
        "item_map": map_figure(item_map, shown_titles, codes, shown_labels, names),
        "num_shown": len(item_map.rows),
        "method": item_map.method,
    }


def cluster_values(clusters: ClusterMap | None, names: Sequence[str]) -> dict[str, Any]:
    """Return template values for the cluster map of the sampler."""
    if clusters is None:
        return {"sizes": None}
    sizes = clusters.layout.cluster_sizes
    cells = np.unique(clusters.layout.cells, return_counts=True)[1]
    levels = {"level-1 clusters": sizes[sizes > 0], "cells (both levels)": cells}
    largest = np.argsort(-sizes, kind="stable")[:NUM_NAMED].tolist()
    return {
        "sizes": sizes_figure(sizes.tolist(), names),
        "cluster_rows": [
            (name, len(counts), int(counts.min()), int(np.median(counts)), int(counts.max()))
            for name, counts in levels.items()
        ],
        "named_rows": [(str(code), names[code] or "-", int(sizes[code])) for code in largest],
        "singleton_share": singleton_share(clusters.layout.cells),
    }


def has_titles(attributes: pa.Table) -> bool:
    """Return whether the items have a column with titles."""
    return title_column(attributes) != "item_id"


def load_titles(attributes: pa.Table) -> list[str]:
    """Return the title of each item, or its id."""
    titles = attributes[title_column(attributes)].to_pylist()
    ids = attributes["item_id"].to_pylist()
    return [str(title or item_id) for title, item_id in zip(titles, ids, strict=True)]


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
