"""The run, read aloud: dataset -> towers -> staged bundle -> measured -> published."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from tqdm import tqdm

from index.bundle.manifest import IndexFacts, read_manifest
from index.bundle.reader import open_bundle
from index.clusters.store import ClusterStore
from index.errors import BundleError, WorseThanPopularityError
from index.publish.writer import add_measures
from index.retriever import Retriever
from index.shelf import Shelf
from trainer.catalogue import training_counts
from trainer.checkpoint import Checkpoint
from trainer.config import RunConfig
from trainer.course import Course, fresh_towers, prepare
from trainer.data.dataset import Dataset, load_dataset
from trainer.data.histories import cases, histories
from trainer.data.interactions import TEST, TRAIN
from trainer.esans.publication import publish_map_of
from trainer.evaluation import Report, evaluate, table_of
from trainer.item_columns import choose_columns
from trainer.publishing import stage_bundle
from trainer.sampler_choice import clusters_of, open_sampler, refuse_to_follow
from trainer.samplers.interface import Sampler
from trainer.training import Trained, train

RUN_KEYS = {"seed", "data", "towers", "clusters", "training"}  # what the weights follow from


@dataclass(frozen=True)
class Published:
    """What a run left behind."""

    version: str
    report: Report


def run(
    config: RunConfig,
    folder: Path,
    bundles: Path,
    store: ClusterStore,
    *,
    force: bool,
    follows: bool,
) -> Published:
    """Train on a dataset folder, measure the staged bundle, publish it and make it current.

    store    where the run's cluster map is published too
    force    make it current even where popularity measures better
    follows  draw from the store's current map, swapped while training

    Raises ConfigError, DatasetError, TrainingError, BundleError; WorseThanPopularityError after
    publishing. A store that is away fails no run.
    """
    if follows:
        refuse_to_follow(config)
    torch.set_num_threads(config.training.threads)
    data = load_dataset(folder, config.data.split, config.seed)
    tqdm.write(description_of(data))
    chosen = choose_columns(data.attributes, config.bundle)
    shelf = Shelf(bundles)
    shelf.prepare()
    course = prepare(data, config)
    checkpoint = checkpoint_of(bundles, data, config, follows=follows)
    with open_sampler(data, config, store if follows else None) as sampler:
        trained = train_towers(course, data, sampler, config, checkpoint)
    clusters = clusters_of(sampler)
    with shelf.stage() as staged:
        now = datetime.now(UTC)
        manifest = stage_bundle(
            staged,
            data,
            course.catalogue,
            clusters,
            trained,
            course.validation,
            config,
            chosen,
            now,
        )
        tqdm.write(index_line(manifest.index))
        report = measure_staged(staged, data, config)
        version = shelf.publish(staged, now)
    tqdm.write(table_of(report))
    is_refused = not force and is_worse(report)
    if not is_refused:
        shelf.make_current(version)
    checkpoint.remove()  # not before: a full disk may yet refuse the pointer
    if is_refused:
        raise worse_than_popularity(report, bundles, version)
    if clusters is not None:
        tqdm.write(publish_map_of(clusters, sampler, store, bundles / version))
    return Published(version, report)


def train_towers(
    course: Course, data: Dataset, sampler: Sampler, config: RunConfig, checkpoint: Checkpoint
) -> Trained:
    """Build both towers and train them."""
    towers = fresh_towers(course, data, config)
    dropout = config.towers.id_dropout
    return train(towers, course, sampler, config.training, dropout, checkpoint)


def checkpoint_of(
    bundles: Path, data: Dataset, config: RunConfig, *, follows: bool = False
) -> Checkpoint:
    """Name the checkpoint of this very run: same data, same configuration, same seed.

    A run that follows a store's map goes on from no other kind, nor the other way round.
    """
    values = config.model_dump(mode="json", include=RUN_KEYS)
    del values["training"]["checkpoint_s"]
    told = [data.fingerprint, values, *(["follows"] if follows else [])]
    text = json.dumps(told, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    return Checkpoint(bundles / ".checkpoints" / f"{key[:16]}.safetensors", key)


def measure_staged(staged: Path, data: Dataset, config: RunConfig) -> Report:
    """Open the staged bundle as a service would, measure it, tell it in its manifest."""
    report = evaluate(
        Retriever(open_bundle(staged)),
        data.item_ids,
        cases(data.interactions, TEST, len(data.user_ids)),
        histories(data.interactions, (TRAIN,), len(data.user_ids)),
        training_counts(data),
        config.evaluation,
    )
    add_measures(staged, {"test": report})
    return report


def is_worse(report: Report) -> bool:
    """Tell whether popularity finds more of the test items in 50."""
    return bool(report["model"]["recall@50"] < report["popularity"]["recall@50"])


def worse_than_popularity(
    report: Report, bundles: Path, version: str
) -> WorseThanPopularityError:
    """Say what was measured, and what can be done about it."""
    model, popular = report["model"]["recall@50"], report["popularity"]["recall@50"]
    return WorseThanPopularityError(
        f"{bundles / version}: published but not made current: its test recall@50 is "
        f"{model:.4f}, popularity reaches {popular:.4f}; train longer, bring more data, "
        f"or make it current anyway with `python -m index rollback {bundles} {version}`"
    )


def index_line(card: IndexFacts) -> str:
    """Say how the index was built, and what it finds of the exact best."""
    probes = f", nprobe {card.nprobe}" if card.nprobe else ""
    found = ", ".join(f"@{count} {share:.4f}" for count, share in card.recall.items())
    return f"index: {card.factory}{probes}; recall against exact search {found or 'exact'}"


def is_current(config: RunConfig, data: Dataset, bundles: Path) -> bool:
    """Tell whether the current bundle was made from this dataset by this configuration."""
    try:
        manifest = read_manifest(Shelf(bundles).current())
    except BundleError:
        return False
    same_config = manifest.run.get("config") == config.model_dump(mode="json")
    return same_config and manifest.dataset.fingerprint == data.fingerprint


def description_of(data: Dataset) -> str:
    """Say what was read, for a person."""
    kinds = ", ".join(f"{name} [{rows.shape[1]}]" for name, rows in data.modalities.items())
    lines = [
        f"{len(data.user_ids):,} users, {len(data.item_ids):,} items, "
        f"{len(data.interactions.parts):,} interactions; modalities: {kinds or 'none'}; "
        f"split: {data.split}",
        *(f"  note: {note}" for note in data.notes),
    ]
    return "\n".join(lines)
