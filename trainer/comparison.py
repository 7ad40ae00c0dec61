"""Comparison of a newly published bundle with the current one, from their manifests and ids."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from index.bundle.manifest import Manifest, read_manifest
from index.ids import open_id_table
from trainer.metrics import METRIC_NAMES

PRIMARY_METRIC = "recall@50"  # on the test users


@dataclass(frozen=True)
class Comparison:
    """Two bundles side by side.

    Attributes:
        current: version of the current bundle.
        current_metrics: test metrics of its model; empty if it has none.
        new_metrics: those of the new bundle.
        is_same_data: whether both were measured on the same test cases.
        missing_count: items of the current bundle that the new one lacks.
        added_count: items of the new bundle that the current one lacks.
        notes: bundle -> what its metrics are of, if not of the published model.
    """

    current: str
    current_metrics: dict[str, float]
    new_metrics: dict[str, float]
    is_same_data: bool
    missing_count: int
    added_count: int
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def is_better(self) -> bool:
        """Whether the primary metric is higher, or the current bundle has none."""
        before = self.current_metrics.get(PRIMARY_METRIC)
        return before is None or self.new_metrics[PRIMARY_METRIC] > before


def compare_bundles(current: Path, new: Path) -> Comparison:
    """Compare two bundle folders; raises BundleError, OSError or ValueError if one is damaged."""
    manifests = read_manifest(current), read_manifest(new)
    current_ids, new_ids = (open_id_table(folder, "item_ids") for folder in (current, new))
    old_items = current_ids.ids_of(np.arange(len(current_ids), dtype=np.int32))
    shared_count = int((new_ids.rows_of(old_items) >= 0).sum())
    return Comparison(
        current=current.name,
        current_metrics=_model_metrics(manifests[0]),
        new_metrics=_model_metrics(manifests[1]),
        is_same_data=has_same_test_cases(*manifests),
        missing_count=len(current_ids) - shared_count,
        added_count=len(new_ids) - shared_count,
        notes={
            name: describe_refit(refit)
            for name, manifest in zip(("current", "new"), manifests, strict=True)
            if (refit := get_refit(manifest))
        },
    )


def has_same_test_cases(before: Manifest, after: Manifest) -> bool:
    """Return whether two bundles were measured on the same cases of the same data and split."""
    if before.dataset.fingerprint != after.dataset.fingerprint:
        return False
    reports = [manifest.metrics.get("test", {}) for manifest in (before, after)]
    counts = [(report.get("cases"), report.get("total_cases")) for report in reports]
    seeds = [manifest.run.get("config", {}).get("seed") for manifest in (before, after)]
    is_sampled = counts[0][0] != counts[0][1]
    return counts[0] == counts[1] and (not is_sampled or seeds[0] == seeds[1])


def render_comparison(comparison: Comparison) -> str:
    """Render the metrics side by side, and the difference of the catalogues."""
    rows = {"current": comparison.current_metrics, "new": comparison.new_metrics}
    columns = [name for name in METRIC_NAMES if name in comparison.new_metrics]
    table = tabulate(
        [[name, *map(metrics.get, columns)] for name, metrics in rows.items()],
        ["", *columns],
        floatfmt=".4f",
        missingval="-",
    )
    data = "same test users" if comparison.is_same_data else "other test users"
    notes = "".join(f"{name}: {note}\n" for name, note in comparison.notes.items())
    return (
        f"compared with the current bundle {comparison.current} ({data}):\n\n{table}\n\n"
        f"{notes}"
        f"{comparison.missing_count:,} items of the current bundle are missing in the new one, "
        f"{comparison.added_count:,} are new"
    )


def _model_metrics(manifest: Manifest) -> dict[str, Any]:
    test: dict[str, Any] = manifest.metrics.get("test", {})
    return dict(test.get("model", {}))


def describe_refit(refit: Mapping[str, Any]) -> str:
    """Describe `run.training.refit` of a manifest, to stand beside its metrics."""
    return (
        f"the metrics are those of the model before the refit; the published one was trained for "
        f"{refit['epochs']:,} epochs on all {refit['interactions']:,} interactions, test included"
    )


def get_refit(manifest: Manifest) -> dict[str, Any] | None:
    """Return `run.training.refit` of a manifest, None if the bundle was not refitted."""
    refit: dict[str, Any] | None = manifest.run.get("training", {}).get("refit")
    return refit
