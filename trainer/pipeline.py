"""Training pipeline: dataset, towers, staged bundle, evaluation, publishing."""

import hashlib
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from trainer.bundle_export import FinishedRun, choose_columns, describe_columns, stage_bundle
from trainer.checkpoint import Checkpoint
from trainer.comparison import PRIMARY_METRIC, compare_bundles, render_comparison
from trainer.config import RunConfig
from trainer.data.dataset import Dataset, load_dataset
from trainer.data.event_cache import EventCache
from trainer.esans.publish import publish_run_cluster_map
from trainer.evaluate import Report, evaluate, render_report
from trainer.item_features import map_modalities
from trainer.metrics import build_evaluation_set
from trainer.sampler_factory import get_cluster_map, open_sampler, require_cluster_map_sampler
from trainer.train_loop import train
from trainer.training_data import build_training_data, choose_device

CHECKPOINT_KEYS = {"seed", "data", "towers", "clusters", "training"}  # determine the weights


@dataclass(frozen=True)
class RunOptions:
    """Inputs and outputs of a run.

    Attributes:
        folder: dataset folder.
        bundles: bundle folder.
        store: registry that the run's cluster map is published to.
        force: make the bundle current even if the popularity baseline is better.
        follow: sample negatives with the store's current map, hot-swapped during training.
        skip_same: do nothing if the current bundle has the same data and configuration.
        only_if_better: make the bundle current only if its test recall@50 is higher.
    """

    folder: Path
    bundles: Path
    store: ClusterMapRegistry
    force: bool = False
    follow: bool = False
    skip_same: bool = False
    only_if_better: bool = False


@dataclass(frozen=True)
class RunResult:
    """Published bundle of a run.

    Attributes:
        version: bundle version.
        is_current: whether it was made current.
        example: body of a request for /retrieve that the bundle answers.
    """

    version: str
    is_current: bool
    example: dict[str, object]


def run(config: RunConfig, options: RunOptions) -> RunResult | None:
    """Train on a dataset, evaluate and publish a bundle; None if `skip_same` applies.

    An unreachable store does not fail the run.

    Raises:
        ConfigError, DatasetError, TrainingError, BundleError: before publishing.
        WorseThanPopularityError: after publishing; the bundle is not made current.
    """
    if options.follow:
        require_cluster_map_sampler(config)
    choose_device(config.training)  # before the data is read
    torch.set_num_threads(config.training.threads)
    cache = EventCache(options.bundles / ".cache")
    data = load_dataset(options.folder, config.data.split, config.seed, cache)
    if options.skip_same and is_current(config, data, options.bundles):
        return None
    columns = choose_columns(data.attributes, config.bundle)
    tqdm.write(render_dataset_summary(data))
    tqdm.write(describe_columns(data.attributes, config.bundle, columns))
    registry = BundleRegistry(options.bundles)
    registry.prepare()
    data = replace(data, modalities=map_modalities(data.modalities, options.bundles))
    training_data = build_training_data(data, config)
    checkpoint = build_checkpoint(options.bundles, data, config, follow=options.follow)
    with note_saved(checkpoint):
        with open_sampler(data, config, options.store if options.follow else None) as sampler:
            trained = train(training_data, sampler, config, checkpoint)
        clusters = get_cluster_map(sampler)
        finished = FinishedRun(config, data, training_data, trained, clusters, columns)
        version, report = publish(registry, finished)
    tqdm.write(render_report(report))
    is_rejected = is_worse_than_popularity(report) and not options.force
    is_now_current = not is_rejected and make_current(registry, version, options)
    checkpoint.remove()  # last, because writing the pointer can fail on a full disk
    if is_rejected:
        raise build_worse_error(report, options.bundles, version)
    if is_now_current and clusters is not None:
        tqdm.write(
            publish_run_cluster_map(clusters, sampler, options.store, options.bundles / version)
        )
    return RunResult(version, is_now_current, build_example(data, config))


@contextmanager
def note_saved(checkpoint: Checkpoint) -> Iterator[None]:
    """Add what a checkpoint holds to an interruption."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(checkpoint.describe())
        raise


def is_worse_than_popularity(report: Report) -> bool:
    """Return whether popularity has the higher test recall@50."""
    return bool(report["model"][PRIMARY_METRIC] < report["popularity"][PRIMARY_METRIC])


def make_current(registry: BundleRegistry, version: str, options: RunOptions) -> bool:
    """Make a published bundle current, unless `only_if_better` and the current one is as good."""
    is_improvement = is_better_than_current(registry, version)
    if options.only_if_better and not is_improvement:
        rollback = module_command("index", "rollback", str(options.bundles), version)
        tqdm.write(
            f"\n{options.bundles / version}: published but not made current, because its test "
            f"{PRIMARY_METRIC} is not higher; make it current with\n  {rollback}"
        )
        return False
    registry.make_current(version)
    return True


def is_better_than_current(registry: BundleRegistry, version: str) -> bool:
    """Print the comparison with the current bundle; return whether the new one is better."""
    try:
        if registry.pointer() is None:
            return True
        comparison = compare_bundles(registry.current(), registry.path_of(version))
    except (BundleError, OSError, ValueError) as error:
        tqdm.write(f"\nwarning: the current bundle cannot be compared: {error}")
        return True
    tqdm.write(f"\n{render_comparison(comparison)}")
    return comparison.is_better


def module_command(*words: str) -> str:
    """Return a `python -m` command to paste into a shell."""
    return shlex.join([sys.executable, "-m", *words])


def build_example(data: Dataset, config: RunConfig) -> dict[str, object]:
    """Build the body of a request for /retrieve: a known user, or a history of one item."""
    if config.bundle.histories:
        return {"user_id": data.user_ids[0], "k": 10}
    return {"history": [data.item_ids[data.interactions.item_rows[0]]], "k": 10}


def publish(registry: BundleRegistry, finished: FinishedRun) -> tuple[str, Report]:
    """Stage a bundle, evaluate it through the serving path and publish it.

    Returns:
        The version, and the evaluation report, which the manifest also contains.
    """
    with registry.stage() as staged:
        now = datetime.now(UTC)
        manifest = stage_bundle(staged, finished, now)
        tqdm.write(render_index_summary(manifest.index))
        evaluation_set = build_evaluation_set(finished.data, finished.config)
        retriever = Retriever(open_bundle(staged))
        report = evaluate(retriever, evaluation_set, finished.config.evaluation)
        add_metrics(staged, {"test": report})
        return registry.publish(staged, now), report


def build_checkpoint(
    bundles: Path, data: Dataset, config: RunConfig, *, follow: bool = False
) -> Checkpoint:
    """Return the checkpoint of the run with this dataset, configuration, seed and `follow`."""
    values = config.model_dump(mode="json", include=CHECKPOINT_KEYS)
    del values["training"]["checkpoint_interval_s"]
    identity = [data.fingerprint, values, *(["follows"] if follow else [])]
    text = json.dumps(identity, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    return Checkpoint(bundles / ".checkpoints" / f"{key[:16]}.safetensors", key)


def build_worse_error(report: Report, bundles: Path, version: str) -> WorseThanPopularityError:
    """Build the error for a model that is worse than the popularity baseline."""
    model, popular = (report[name][PRIMARY_METRIC] for name in ("model", "popularity"))
    rollback = module_command("index", "rollback", str(bundles), version)
    return WorseThanPopularityError(
        f"{bundles / version}: published but not made current: found test {PRIMARY_METRIC} "
        f"{model:.4f}, expected at least {popular:.4f} of the popularity baseline; train longer, "
        f"add data, or make it current with `{rollback}`"
    )


def render_index_summary(card: IndexFacts) -> str:
    """Summarise the ANN index: its factory string and its recall against exact search."""
    probes = f", nprobe {card.nprobe}" if card.nprobe else ""
    recall = ", ".join(f"@{count} {share:.4f}" for count, share in card.recall.items())
    return f"index: {card.factory}{probes}; recall against exact search {recall or 'exact'}"


def is_current(config: RunConfig, data: Dataset, bundles: Path) -> bool:
    """Return whether the current bundle has this dataset and configuration."""
    try:
        manifest = read_manifest(BundleRegistry(bundles).current())
    except BundleError:
        return False
    same_config = manifest.run.get("config") == config.model_dump(mode="json")
    return same_config and manifest.dataset.fingerprint == data.fingerprint


def render_dataset_summary(data: Dataset) -> str:
    """Summarise a dataset for the terminal."""
    modalities = ", ".join(f"{name} [{rows.shape[1]}]" for name, rows in data.modalities.items())
    lines = [
        f"{len(data.user_ids):,} users, {len(data.item_ids):,} items, "
        f"{len(data.interactions.parts):,} interactions; modalities: {modalities or 'none'}; "
        f"split: {data.split}",
        *(f"  note: {note}" for note in data.notes),
    ]
    return "\n".join(lines)
