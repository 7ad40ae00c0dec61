"""The report of one published run, all of it read from its bundle."""

from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from index.bundle.manifest import IndexFacts, Manifest
from index.bundle.reader import Bundle
from trainer.esans.stats import category_column, first_labels
from trainer.metrics import COUNTS, COVERAGE_COUNT, MIN_CASES
from trainer.report.figures import (
    NAMES,
    buckets_figure,
    curve_figure,
    methods_figure,
)
from trainer.report.items_sections import clusters, item_vectors
from trainer.report.page import Section, drawing, heading, missing, page, paragraph, table

BUCKETS = ("head", "torso", "tail", "cold")
Found = Mapping[str, Any]


def report_of_run(bundle: Bundle) -> str:
    """Return the page of a published run."""
    manifest = bundle.manifest
    attributes = pq.read_table(bundle.folder / "items.parquet")
    column = category_column(attributes, None)
    labels = None if column is None else first_labels(attributes, column)
    sections = [
        about(manifest, bundle.version),
        training(manifest.run.get("training", {})),
        beside_references(manifest.measures.get("test", {})),
        by_popularity(manifest.measures.get("test", {})),
        item_vectors(bundle, attributes, column, labels),
        clusters(bundle, labels),
        index_recall(manifest.index),
        configuration(manifest),
    ]
    lead = (
        f"One published run of {manifest.dataset.users:,} users and {manifest.items:,} items, "
        f"made at {moment(manifest.made_at)}. Every number is read from the bundle's "
        "manifest.json or its files; figures say which. Hover over a figure for values, drag "
        "to zoom, double-click to go back."
    )
    return page(f"{manifest.name}: run {bundle.version}", lead, sections)


def about(manifest: Manifest, version: str) -> Section:
    """Tell what the run is."""
    data = manifest.dataset
    sampler = manifest.run.get("config", {}).get("training", {}).get("sampler", {})
    kinds = ", ".join(f"{name} [{width}]" for name, width in manifest.modalities.items())
    rows: list[tuple[str, object]] = [
        ("version", version),
        ("made at", moment(manifest.made_at)),
        ("sampler of negatives", sampler.get("name", "not told")),
        ("dataset", f"fingerprint {data.fingerprint[:16]}"),
        ("split", data.split),
        ("users", f"{data.users:,}"),
        ("items", f"{manifest.items:,}"),
        ("interactions", f"{data.interactions:,}, {data.training_interactions:,} to train on"),
        ("features [width]", kinds or "none"),
        ("vector width", f"{manifest.width} numbers"),
        ("history read", f"the newest {manifest.history_length} items of a user"),
        ("notes on the data", "; ".join(data.notes) or "none"),
    ]
    return Section("What it is", [table(("", ""), rows)])


def moment(made_at: str) -> str:
    """Spell the manifest's time for a person."""
    return f"{made_at[:19].replace('T', ' ')} UTC"


def training(found: Found) -> Section:
    """Draw the curves, and tell which epoch was published."""
    title = "Training"
    if not found.get("curve"):
        return Section(title, [missing("The manifest holds no training curve.")])
    curve, best = found["curve"], int(found["best_epoch"])
    seconds = sum(float(epoch["seconds"]) for epoch in curve)
    told = (
        f"{len(curve)} epochs, {found['steps']:,} steps, {seconds:,.0f} s. Published are the "
        f"weights of epoch {best}, the best by validation recall@50 "
        f"({found['validation_recall@50']:.4f})."
    )
    caption = (
        "Loss on the training part and recall@50 on the validation part after each epoch; the "
        "star marks the best epoch. From manifest.json, run.training.curve."
    )
    shown = drawing(curve_figure(curve, best), "curve", caption)
    return Section(title, [paragraph(told), shown])


def beside_references(report: Found) -> Section:
    """Draw and tabulate the model beside popularity and EASE."""
    title = "Beside popularity and EASE"
    measures = {name: report[name] for name in NAMES if name in report}
    if "model" not in measures:
        return Section(title, [missing("The manifest holds no measures of the test part.")])
    columns = [f"{kind}@{count}" for kind in ("recall", "ndcg") for count in COUNTS]
    columns.append(f"coverage@{COVERAGE_COUNT}")
    rows = [
        [NAMES[name], *(found.get(column) for column in columns)]
        for name, found in measures.items()
    ]
    caption = (
        f"Recall (share of a user's held-out items found) and NDCG (the same, early places "
        f"counting more) over {report['cases']:,} test cases; all items ranked through the "
        "published index, seen ones removed. From manifest.json, measures.test."
    )
    parts = [drawing(methods_figure(measures), "methods", caption), table(["", *columns], rows)]
    return Section(title, parts + [missing(note) for note in report.get("notes", [])])


def by_popularity(report: Found) -> Section:
    """Draw recall@50 by popularity of the item that was to be found."""
    title = "By popularity of the item"
    found = report.get("buckets", {})
    buckets = {name: found[name] for name in NAMES if name in found}
    if "model" not in buckets:
        return Section(title, [missing("The manifest holds no measures by popularity.")])
    names = [name for name in BUCKETS if name in buckets["model"]]
    few = [name for name in names if int(buckets["model"][name]["targets"]) < MIN_CASES]
    caption = (
        "Recall@50 by the training count of the held-out item: head is the most taken 10 % of "
        "the items, torso the next 40 %, tail the rest, cold those nobody took in training. "
        "From manifest.json, measures.test.buckets."
    )
    parts = [drawing(buckets_figure(buckets, names), "buckets", caption)]
    if few:
        told = f"No figure for {', '.join(few)}: fewer than {MIN_CASES} test items."
        parts.append(missing(told))
    return Section(title, parts)


def index_recall(facts: IndexFacts) -> Section:
    """Tell what the index finds of what an exact search finds."""
    probes = f", {facts.nprobe} lists looked at per query" if facts.nprobe else ""
    told = f"Index {facts.factory}{probes}, faiss {facts.faiss_version}."
    title = "Index against exact search"
    if not facts.recall:
        return Section(title, [paragraph(told), missing("Its recall was not measured.")])
    rows = [[f"@{count}", share] for count, share in sorted(facts.recall.items())]
    words = "Share of the exact best that the index finds. From manifest.json, index.recall."
    if facts.factory == "Flat":
        words += " A Flat index searches exactly, so that nothing is lost."
    return Section(title, [paragraph(f"{told} {words}"), table(("candidates", "found"), rows)])


def configuration(manifest: Manifest) -> Section:
    """List every setting of the run, and the libraries it ran with."""
    settings = flattened(manifest.run.get("config", {}))
    parts = [paragraph("What the run was told. From manifest.json, run.config.")]
    if settings:
        parts.append(table(("setting", "value"), list(settings.items())))
    else:
        parts.append(missing("The manifest holds no configuration."))
    libraries = sorted(manifest.libraries.items())
    if libraries:
        parts += [heading("Libraries"), table(("library", "version"), libraries)]
    return Section("Configuration", parts)


def flattened(values: Found, prefix: str = "") -> dict[str, str]:
    """Spell nested settings as dotted names, as one would write them in the file."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = _as_written(value)
    return flat


def _as_written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value not in ("", [], None) else "(empty)"
