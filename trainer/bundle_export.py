"""From trained towers to a staged bundle: what a run made, in the form that the index reads."""

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

from index.ann.tuning import TUNING_QUERIES, build_item_index
from index.bundle.manifest import DatasetFacts, Manifest, RunFacts
from index.bundle.reader import StoredHistories
from index.cluster_map import ClusterMap
from index.cluster_map_io import card_of, save_cluster_map
from index.errors import ConfigError
from index.ids import build_id_table
from index.ingest.tables import (
    PublishedColumns,
    build_column,
    is_filterable,
    is_json_serializable,
    is_list,
    item_metadata,
)
from index.metadata import SEPARATOR
from index.publish.writer import Contents, write_bundle
from trainer.config import BundleConfig, RunConfig
from trainer.data.dataset import Dataset
from trainer.data.interactions import TEST, TRAIN, VALID, histories, training_counts
from trainer.onnx_export import export_towers
from trainer.train_loop import TrainedTowers, encode_histories
from trainer.training_data import TrainingData

PROBES = 8
LIBRARIES = ("faiss-cpu", "numpy", "onnx", "onnxruntime", "safetensors", "torch")
ALL = "*"  # in a configuration: every column that is fit
DISTINCT_LIMIT = 1_000  # values of a column that is filtered by without being named


@dataclass(frozen=True)
class FinishedRun:
    """What a run has made, before it is a bundle.

    clusters  the map that negatives were drawn from, the last of them, or None
    columns   of the items table that are published
    """

    config: RunConfig
    data: Dataset
    training_data: TrainingData
    trained: TrainedTowers
    clusters: ClusterMap | None
    columns: PublishedColumns


def stage_bundle(staged: Path, run: FinishedRun, now: datetime) -> Manifest:
    """Write everything but the metrics into a staged folder.

    The index is tuned, and its self-test made, from histories of the validation cases.
    """
    data, trained, cases = run.data, run.trained, run.training_data.validation
    vectors = run.training_data.features.encode_all(trained.towers.item)
    tuning = range(min(TUNING_QUERIES, len(cases.user_rows)))
    probes = tuning[:PROBES]
    with torch.no_grad():
        queries = encode_histories(trained.towers.user, vectors, cases.histories, probes)
    contents = Contents(
        item_ids=data.item_ids,
        vectors=vectors.cpu().numpy(),
        counts=training_counts(data.interactions, len(data.item_ids)),
        histories=whole_histories(data) if run.config.bundle.histories else None,
        tuning_histories=[cases.histories.of(case) for case in tuning],
        self_test_histories=[cases.histories.of(case) for case in probes],
        self_test_queries=queries.cpu().numpy(),
        metadata=item_metadata(data.attributes, run.columns),
    )
    export_towers(trained.towers, staged)
    if run.clusters:
        save_cluster_map(run.clusters, staged)
    pq.write_table(data.attributes, staged / "items.parquet")
    build = partial(build_item_index, seed=run.config.seed)
    return write_bundle(staged, contents, facts_of_run(run, now), build)


def whole_histories(data: Dataset) -> StoredHistories:
    """Gather every user's interactions, held-out items too: the service answers from it."""
    whole = histories(data.interactions, (TRAIN, VALID, TEST), len(data.user_ids))
    users = build_id_table(data.user_ids)
    return StoredHistories(users, whole.offsets, whole.item_rows)


def facts_of_run(run: FinishedRun, now: datetime) -> RunFacts:
    """Gather what the manifest records of the run."""
    config, data, progress = run.config, run.data, run.trained.progress
    training: dict[str, Any] = {
        "curve": progress.curve,
        "best_epoch": progress.best_epoch + 1,
        "validation_recall@50": progress.best_recall,
        "steps": progress.step,
    }
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
        cluster_maps=lineage_of(run),
        run={"config": config.model_dump(mode="json"), "training": training},
        libraries={name: version(name) for name in LIBRARIES}
        | {"python": platform.python_version()},
    )


def lineage_of(run: FinishedRun) -> list[dict[str, Any]]:
    """Return the card of every map that the run drew from, in order, the bundle's own last."""
    swapped = run.trained.progress.cluster_maps
    if swapped or run.clusters is None:
        return swapped
    return [card_of(run.clusters).model_dump(mode="json")]


def choose_columns(table: pa.Table, config: BundleConfig) -> PublishedColumns:
    """Choose what to publish; raises ConfigError, naming each column that cannot be."""
    faults: list[str] = []
    attributes, rest = _named(table, "attributes", config.attributes, is_json_serializable, faults)
    filters, others = _named(table, "filters", config.filters, is_filterable, faults)
    if faults:
        raise ConfigError("\n".join(faults))
    filters += [name for name in others if _has_few_values(table[name])]
    return PublishedColumns(attributes + rest, filters)


def _named(
    table: pa.Table,
    key: str,
    names: Sequence[str],
    is_fit: Callable[[pa.DataType], bool],
    faults: list[str],
) -> tuple[list[str], list[str]]:
    """Return the columns named, each once, and what `*` stands for; tell of unfit ones."""
    columns = {field.name: field.type for field in table.schema if field.name != "item_id"}
    fit = [name for name, kind in columns.items() if SEPARATOR not in name and is_fit(kind)]
    named = [name for name in dict.fromkeys(names) if name != ALL]
    for name in named:
        if name not in fit:
            known = name in columns
            found = f"is of type {columns[name]}" if known else "is no such column"
            faults.append(
                f"bundle.{key}: {name!r} {found} of the items table; fit are "
                f"{', '.join(fit) or 'none'}; name one of these, or leave it out"
            )
    return named, [name for name in fit if name not in named and ALL in names]


def _has_few_values(values: pa.ChunkedArray) -> bool:
    """Tell whether many items share each value: neither prose nor an id."""
    cells = pc.list_flatten(values) if is_list(values.type) else values
    if pc.count_distinct(cells).as_py() > DISTINCT_LIMIT + 2:  # nothing, and empty text
        return False
    column = build_column(values)
    distinct = len(column.values)
    is_an_id = distinct == len(column.rows) > 1
    return distinct <= DISTINCT_LIMIT and not is_an_id
