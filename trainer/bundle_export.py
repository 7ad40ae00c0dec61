"""Export of a training run to a staged bundle."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from index.ann.tuning import TUNING_QUERIES, build_item_index
from index.arrays import Floats, save_rows
from index.bundle.manifest import DatasetFacts, Manifest, RunFacts
from index.bundle.reader import StoredHistories
from index.cluster_map import ClusterMap
from index.cluster_map_io import build_metadata, save_cluster_map
from index.errors import ConfigError
from index.ids import build_id_table
from index.ingest.published_columns import (
    PublishedColumns,
    build_column,
    is_filterable,
    is_json_serializable,
    item_metadata,
)
from index.ingest.tables import decode_dictionary, is_list, quote
from index.metadata import SEPARATOR
from index.publish.writer import VECTORS, Contents, write_bundle
from trainer.config import BundleConfig, RunConfig
from trainer.data.dataset import Dataset
from trainer.data.interactions import TEST, TRAIN, VALID, build_histories, training_counts
from trainer.onnx_export import export_towers
from trainer.refit import Evaluated
from trainer.train_loop import TrainedTowers
from trainer.training_data import TrainingData
from trainer.validation import encode_histories

SELF_TEST_QUERIES = 8
LIBRARIES = ("faiss-cpu", "numpy", "onnx", "onnxruntime", "safetensors", "torch")
ALL_COLUMNS = "*"  # in a configuration: every column of a supported type
DISTINCT_LIMIT = 1_000  # values of a column that `*` selects as a filter


@dataclass(frozen=True)
class FinishedRun:
    """Results of a training run, before export.

    Attributes:
        clusters: last cluster map that negatives were sampled with, or None.
        columns: columns of the items table to publish.
        evaluated: results of the run before the refit, if it is one.
        lineage: further facts for `run.training` of the manifest.
    """

    config: RunConfig
    data: Dataset
    training_data: TrainingData
    trained: TrainedTowers
    clusters: ClusterMap | None
    columns: PublishedColumns
    evaluated: Evaluated | None
    lineage: dict[str, Any]


def stage_bundle(staged: Path, run: FinishedRun, now: datetime) -> Manifest:
    """Write everything except the metrics into a staged folder.

    Histories of the validation cases tune the index and become its self-test.
    """
    data, trained, cases = run.data, run.trained, run.training_data.validation
    chunks = run.training_data.features.encode_chunks(trained.towers.item)
    shape = (len(data.item_ids), run.config.towers.embedding_dim)
    vectors = save_rows(staged / VECTORS, shape, (chunk.cpu().numpy() for chunk in chunks))
    tuning = range(min(TUNING_QUERIES, len(cases.user_rows)))
    self_test = [cases.histories.get(case) for case in tuning[:SELF_TEST_QUERIES]]
    with torch.no_grad():
        queries = encode_histories(trained.towers.user, partial(select_rows, vectors), self_test)
    contents = Contents(
        item_ids=data.item_ids,
        vectors=vectors,
        counts=training_counts(data.interactions, len(data.item_ids)),
        histories=build_stored_histories(data) if run.config.bundle.histories else None,
        tuning_histories=[cases.histories.get(case) for case in tuning],
        self_test_histories=self_test,
        self_test_queries=queries.cpu().numpy(),
        metadata=item_metadata(data.attributes, run.columns),
    )
    export_towers(trained.towers, staged)
    if run.clusters:
        save_cluster_map(run.clusters, staged)
    pq.write_table(data.attributes, staged / "items.parquet")
    build = partial(build_item_index, seed=run.config.seed)
    return write_bundle(staged, contents, build_run_facts(run, now), build)


def select_rows(vectors: Floats, rows: Tensor) -> Tensor:
    """Return rows of an array as a tensor on their device."""
    return torch.from_numpy(vectors[rows.cpu().numpy()]).to(rows.device)


def build_stored_histories(data: Dataset) -> StoredHistories:
    """Build the histories that the service uses: all interactions, held-out items included."""
    full = build_histories(data.interactions, (TRAIN, VALID, TEST), len(data.user_ids))
    users = build_id_table(data.user_ids)
    return StoredHistories(users, full.offsets, full.item_rows)


def build_run_facts(run: FinishedRun, now: datetime) -> RunFacts:
    """Build the run's section of the manifest."""
    config, data = run.config, run.data
    progress = run.evaluated.progress if run.evaluated else run.trained.progress
    training: dict[str, Any] = {
        "curve": progress.curve,
        "hardness": progress.hardness,
        "best_epoch": progress.best_epoch + 1,
        "validation_recall@50": progress.best_recall,
        "steps": progress.step,
    } | run.lineage
    parts = data.interactions.parts
    return RunFacts(
        name=config.bundle.name,
        created_at=now.isoformat(timespec="seconds"),
        dataset=DatasetFacts(
            fingerprint=data.fingerprint,
            split=data.split,
            is_ordered=data.interactions.is_ordered,
            users=len(data.user_ids),
            interactions=len(parts),
            training_interactions=int((parts == TRAIN).sum()),
            notes=list(data.notes),
        ),
        history_length=config.towers.history_length,
        modalities={name: rows.shape[1] for name, rows in data.modalities.items()},
        cluster_maps=cluster_map_lineage(run),
        run={"config": config.model_dump(mode="json"), "training": training},
        libraries={name: version(name) for name in LIBRARIES}
        | {"python": platform.python_version()},
    )


def cluster_map_lineage(run: FinishedRun) -> list[dict[str, Any]]:
    """Describe every cluster map that the run sampled with, in order, the bundle's own last."""
    swapped = run.trained.progress.cluster_maps
    if swapped or run.clusters is None:
        return swapped
    return [build_metadata(run.clusters).model_dump(mode="json")]


def choose_columns(table: pa.Table, config: BundleConfig) -> PublishedColumns:
    """Choose the published columns; raises ConfigError listing every unusable one."""
    faults: list[str] = []
    attributes, rest = _resolve_columns(
        table, "attributes", config.attributes, is_json_serializable, faults
    )
    filters, others = _resolve_columns(table, "filters", config.filters, is_filterable, faults)
    if faults:
        raise ConfigError("\n".join(faults))
    filters += [name for name in others if _has_few_values(table[name])]
    return PublishedColumns(attributes + rest, filters)


def _resolve_columns(
    table: pa.Table,
    key: str,
    names: Sequence[str],
    is_supported: Callable[[pa.DataType], bool],
    faults: list[str],
) -> tuple[list[str], list[str]]:
    """Return the named columns, each once, and those that `*` adds; append to `faults`."""
    columns = {field.name: field.type for field in table.schema if field.name != "item_id"}
    usable = [
        name for name, kind in columns.items() if SEPARATOR not in name and is_supported(kind)
    ]
    named = [name for name in dict.fromkeys(names) if name != ALL_COLUMNS]
    for name in named:
        if name not in usable:
            known = name in columns
            problem = f"has unsupported type {columns[name]}" if known else "does not exist"
            faults.append(
                f"bundle.{key}: column {name!r} of the items table {problem}; expected one of "
                f"{', '.join(usable) or '(none)'}; use one of these or remove it"
            )
    return named, [name for name in usable if name not in named and ALL_COLUMNS in names]


def describe_columns(table: pa.Table, config: BundleConfig, chosen: PublishedColumns) -> str:
    """Describe which columns are published as attributes and filters, and why others are not."""
    return "\n".join(
        [
            _describe_choice("attributes", table, config.attributes, chosen.attributes),
            _describe_choice("filters", table, config.filters, chosen.filters),
        ]
    )


def _describe_choice(
    key: str, table: pa.Table, requested: Sequence[str], chosen: Sequence[str]
) -> str:
    is_supported = is_filterable if key == "filters" else is_json_serializable
    others = []
    for field in table.schema:
        if field.name in (*chosen, "item_id"):
            continue
        if SEPARATOR in field.name:
            reason = "unsupported name"
        elif not is_supported(field.type):
            reason = f"unsupported type {field.type}"
        elif ALL_COLUMNS not in requested:
            reason = f"not in bundle.{key}"
        else:
            reason = f"unique, or more than {DISTINCT_LIMIT:,} values"
        others.append(f"{quote(field.name)} ({reason})")
    summary = f"{key}: {', '.join(map(quote, chosen)) or 'none'}"
    return f"{summary}; not published: {', '.join(others)}" if others else summary


def _has_few_values(values: pa.ChunkedArray) -> bool:
    """Return whether many items share each value, unlike free text or an id."""
    cells = decode_dictionary(pc.list_flatten(values) if is_list(values.type) else values)
    if pc.count_distinct(cells).as_py() > DISTINCT_LIMIT + 2:  # null and empty text
        return False
    column = build_column(values)
    distinct = len(column.values)
    is_an_id = distinct == len(column.rows) > 1
    return distinct <= DISTINCT_LIMIT and not is_an_id
