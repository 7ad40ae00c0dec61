"""From trained towers to a staged bundle: what a run made, in the form that the index reads."""

import platform
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from index.ann.tuning import TUNING_QUERIES, build_item_index
from index.bundle.manifest import DatasetFacts, Manifest, RunFacts
from index.bundle.reader import StoredHistories
from index.cluster_map import ClusterMap
from index.clusters.files import card_of, save_cluster_map
from index.ids import build_id_table
from index.ingest.tables import PublishedColumns, item_metadata
from index.publish.writer import Contents, write_bundle
from trainer.catalogue import Catalogue, training_counts
from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.histories import Cases, histories
from trainer.data.interactions import TEST, TRAIN, VALID
from trainer.export import export_towers
from trainer.training import Trained
from trainer.validation import queries_of

PROBES = 8
LIBRARIES = ("faiss-cpu", "numpy", "onnx", "onnxruntime", "safetensors", "torch")


def stage_bundle(
    staged: Path,
    data: Dataset,
    catalogue: Catalogue,
    clusters: ClusterMap | None,
    trained: Trained,
    validation: Cases,
    config: RunConfig,
    chosen: PublishedColumns,
    now: datetime,
) -> Manifest:
    """Write everything but the measures into a staged folder.

    chosen      the columns of the items table that are published
    clusters    the map that negatives were drawn from, the last of them, or None
    validation  cases to tune the index on, and to take the probe from
    """
    tower = trained.towers.user
    vectors = catalogue.encode_all(trained.towers.item)
    probes = range(min(PROBES, len(validation.user_rows)))
    with torch.no_grad():
        queries = queries_of(tower, vectors, validation.histories, probes).cpu().numpy()
    tuning = [
        validation.histories.of(case)
        for case in range(min(TUNING_QUERIES, len(validation.user_rows)))
    ]
    contents = Contents(
        item_ids=data.item_ids,
        vectors=vectors.cpu().numpy(),
        counts=training_counts(data),
        histories=whole_histories(data) if config.bundle.histories else None,
        tuning_histories=tuning,
        probe_histories=tuning[: len(probes)],
        probe_queries=queries,
        metadata=item_metadata(data.attributes, chosen),
    )
    export_towers(trained.towers, staged)
    if clusters:
        save_cluster_map(clusters, staged)
    pq.write_table(data.attributes, staged / "items.parquet")
    facts = facts_of_run(data, clusters, trained, config, now)
    build = partial(build_item_index, seed=config.seed)
    return write_bundle(staged, contents, facts, build)


def whole_histories(data: Dataset) -> StoredHistories:
    """Gather what every user took, held-out items too: the service answers from it."""
    whole = histories(data.interactions, (TRAIN, VALID, TEST), len(data.user_ids))
    users = build_id_table(data.user_ids)
    return StoredHistories(users, whole.offsets, whole.item_rows)


def facts_of_run(
    data: Dataset,
    clusters: ClusterMap | None,
    trained: Trained,
    config: RunConfig,
    now: datetime,
) -> RunFacts:
    """Gather what the manifest tells of the run."""
    training: dict[str, Any] = {
        "curve": trained.curve,
        "best_epoch": trained.best_epoch + 1,
        "validation_recall@50": trained.best_recall,
        "steps": trained.steps,
    }
    parts = data.interactions.parts
    return RunFacts(
        name=config.bundle.name,
        made_at=now.isoformat(timespec="seconds"),
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
        cluster_maps=maps_of(clusters, trained),
        run={"config": config.model_dump(mode="json"), "training": training},
        libraries={name: version(name) for name in LIBRARIES}
        | {"python": platform.python_version()},
    )


def maps_of(clusters: ClusterMap | None, trained: Trained) -> list[dict[str, Any]]:
    """Return the card of every map that the run drew from, in order, the bundle's own last."""
    if trained.cluster_maps or clusters is None:
        return trained.cluster_maps
    return [card_of(clusters).model_dump(mode="json")]
