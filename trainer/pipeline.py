"""The run: dataset -> towers -> staged bundle -> evaluated -> published."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from tqdm import tqdm

from index.bundle.manifest import IndexFacts, read_manifest
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.cluster_map_registry import ClusterMapRegistry
from index.errors import BundleError, WorseThanPopularityError
from index.publish.writer import add_metrics
from index.search.retriever import Retriever
from trainer.bundle_export import FinishedRun, choose_columns, stage_bundle
from trainer.checkpoint import Checkpoint
from trainer.config import RunConfig
from trainer.data.dataset import Dataset, load_dataset
from trainer.esans.publish import publish_run_cluster_map
from trainer.evaluate import Report, evaluate, table_of
from trainer.metrics import build_evaluation_set
from trainer.sampler_factory import cluster_map_of, open_sampler, require_cluster_map_sampler
from trainer.train_loop import train
from trainer.training_data import build_training_data

RUN_KEYS = {"seed", "data", "towers", "clusters", "training"}  # what the weights follow from


@dataclass(frozen=True)
class RunOptions:
    """Where a run reads and writes.

    folder   the dataset
    bundles  where bundles are published
    store    where the run's cluster map is published too
    force    make the bundle current even where popularity measures better
    follow   draw from the store's current map, swapped while training
    """

    folder: Path
    bundles: Path
    store: ClusterMapRegistry
    force: bool = False
    follow: bool = False


def run(config: RunConfig, options: RunOptions) -> str:
    """Train on a dataset, evaluate the staged bundle, publish it; return its version.

    Raises ConfigError, DatasetError, TrainingError, BundleError; WorseThanPopularityError after
    publishing. A store that is away fails no run.
    """
    if options.follow:
        require_cluster_map_sampler(config)
    torch.set_num_threads(config.training.threads)
    data = load_dataset(options.folder, config.data.split, config.seed)
    tqdm.write(description_of(data))
    columns = choose_columns(data.attributes, config.bundle)
    registry = BundleRegistry(options.bundles)
    registry.prepare()
    training_data = build_training_data(data, config)
    checkpoint = checkpoint_of(options.bundles, data, config, follows=options.follow)
    with open_sampler(data, config, options.store if options.follow else None) as sampler:
        trained = train(training_data, sampler, config, checkpoint)
    clusters = cluster_map_of(sampler)
    finished = FinishedRun(config, data, training_data, trained, clusters, columns)
    version, report = publish(registry, finished)
    tqdm.write(table_of(report))
    # A model that finds fewer of the test items in 50 than popularity does is kept back.
    is_worse = report["model"]["recall@50"] < report["popularity"]["recall@50"]
    is_refused = is_worse and not options.force
    if not is_refused:
        registry.make_current(version)
    checkpoint.remove()  # not before: a full disk may yet refuse the pointer
    if is_refused:
        raise worse_than_popularity(report, options.bundles, version)
    if clusters is not None:
        tqdm.write(
            publish_run_cluster_map(clusters, sampler, options.store, options.bundles / version)
        )
    return version


def publish(registry: BundleRegistry, finished: FinishedRun) -> tuple[str, Report]:
    """Stage a bundle, evaluate it as a service would open it, and publish it.

    returns  its version, and the report, which is in its manifest too
    """
    with registry.stage() as staged:
        now = datetime.now(UTC)
        manifest = stage_bundle(staged, finished, now)
        tqdm.write(index_line(manifest.index))
        evaluation_set = build_evaluation_set(finished.data)
        retriever = Retriever(open_bundle(staged))
        report = evaluate(retriever, evaluation_set, finished.config.evaluation)
        add_metrics(staged, {"test": report})
        return registry.publish(staged, now), report


def checkpoint_of(
    bundles: Path, data: Dataset, config: RunConfig, *, follows: bool = False
) -> Checkpoint:
    """Name the checkpoint of this very run: same data, same configuration, same seed.

    A run that follows a store's map goes on from no other kind, nor the other way round.
    """
    values = config.model_dump(mode="json", include=RUN_KEYS)
    del values["training"]["checkpoint_interval_s"]
    told = [data.fingerprint, values, *(["follows"] if follows else [])]
    text = json.dumps(told, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    return Checkpoint(bundles / ".checkpoints" / f"{key[:16]}.safetensors", key)


def worse_than_popularity(report: Report, bundles: Path, version: str) -> WorseThanPopularityError:
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
        manifest = read_manifest(BundleRegistry(bundles).current())
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
