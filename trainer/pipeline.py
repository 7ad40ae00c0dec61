"""Training pipeline: dataset, towers, staged bundle, evaluation, publishing."""

import hashlib
import json
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from index.bundle.manifest import read_manifest
from index.bundle.registry import BundleRegistry
from index.cluster_map_registry import ClusterMapRegistry
from index.errors import BundleError, TrainingError, WorseThanPopularityError
from index.fsio import sha256_of
from index.ingest.tables import UNREADABLE_FILE, read_table
from trainer.bundle_export import choose_columns, describe_columns
from trainer.checkpoint import Checkpoint
from trainer.comparison import PRIMARY_METRIC, compare_bundles, get_refit, render_comparison
from trainer.config import RunConfig
from trainer.data.dataset import Dataset, load_dataset
from trainer.data.event_cache import EventCache
from trainer.distributed import is_main_rank, main_rank_first, on_main_rank
from trainer.esans.publish import publish_run_cluster_map
from trainer.evaluate import Report, render_report
from trainer.item_features import map_modalities
from trainer.memory import release_freed_memory
from trainer.refit import evaluated_path, refit_checkpoint
from trainer.run_stages import RunInputs, evaluate_once, note_saved, publish, train_towers
from trainer.sampler_factory import require_cluster_map_sampler
from trainer.training_data import choose_device
from trainer.warm_start import open_warm_start, require_compatible, save_training_state

BEHAVIOUR = "behaviour_file_sha256"  # in the manifest, if the configuration names one
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
        refit: after the evaluation, publish new towers trained on all interactions.
        warm_from: bundle version, or `current`, whose weights training starts from.
    """

    folder: Path
    bundles: Path
    store: ClusterMapRegistry
    force: bool = False
    follow: bool = False
    skip_same: bool = False
    only_if_better: bool = False
    refit: bool = False
    warm_from: str | None = None


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

    With several ranks, all train and the main rank does the rest; the others return None.
    An unreachable store does not fail the run.

    Raises:
        ConfigError, DatasetError, TrainingError, BundleError: before publishing.
        WorseThanPopularityError: after publishing; the bundle is not made current.
    """
    if options.follow:
        require_cluster_map_sampler(config)
    choose_device(config.training)  # before the data is read
    torch.set_num_threads(config.training.threads)
    registry = BundleRegistry(options.bundles)
    warm_start = None
    if options.warm_from and is_main_rank():
        warm_start = open_warm_start(registry, options.warm_from)
    data = read_dataset(config, options)
    if options.skip_same and on_main_rank(lambda: is_current(config, data, options)):
        return None
    if warm_start is not None:
        require_compatible(warm_start, config, data)
    columns = choose_columns(data.attributes, config.bundle)
    tqdm.write(render_dataset_summary(data))
    tqdm.write(describe_columns(data.attributes, config.bundle, columns))
    registry.prepare()
    data = replace(data, modalities=map_modalities(data.modalities, options.bundles))
    release_freed_memory()
    inputs = RunInputs(config, data, columns, options.store if options.follow else None, warm_start)
    return train_and_publish(inputs, options)


def read_dataset(config: RunConfig, options: RunOptions) -> Dataset:
    """Read the dataset; the main rank does so first and fills the cache.

    Raises:
        DatasetError: the folder is invalid.
        TrainingError: the main rank has another dataset.
    """
    cache = EventCache(options.bundles / ".cache")
    with main_rank_first():
        data = load_dataset(options.folder, config.data.split, config.seed, cache)
    expected = on_main_rank(lambda: data.fingerprint)
    if data.fingerprint != expected:
        raise TrainingError(
            f"{options.folder}: found a dataset of fingerprint {data.fingerprint[:16]}, expected "
            f"{expected[:16]} as on the main rank; copy the same files to every machine"
        )
    return data


def train_and_publish(inputs: RunInputs, options: RunOptions) -> RunResult | None:
    """Train, evaluate and publish a bundle; see `run`."""
    config, registry = inputs.config, BundleRegistry(options.bundles)
    base = inputs.warm_start.folder.name if inputs.warm_start else None
    behaviour = behaviour_digest(config)
    checkpoint = build_checkpoint(
        options.bundles,
        inputs.data,
        config,
        follow=options.follow,
        warm_from=base,
        behaviour=behaviour,
    )
    kept = evaluated_path(checkpoint, config)
    refit = refit_checkpoint(checkpoint)
    if options.refit:
        inputs = replace(inputs, evaluated=evaluate_once(inputs, registry, checkpoint, kept))
    with note_saved(refit if options.refit else checkpoint):
        finished, sampler = train_towers(inputs, refit if options.refit else checkpoint)
        if not is_main_rank():
            return None
        if behaviour:
            finished.lineage[BEHAVIOUR] = behaviour
        if config.bundle.training_state:
            finished.lineage["state"] = save_training_state(checkpoint, registry, inputs.data)
        version, report = publish(registry, finished)
    tqdm.write(render_report(report))
    is_rejected = is_worse_than_popularity(report) and not options.force
    is_now_current = not is_rejected and make_current(registry, version, options)
    refit.remove()  # last, because writing the pointer can fail on a full disk
    kept.unlink(missing_ok=True)
    checkpoint.remove()
    if is_rejected:
        raise build_worse_error(report, options.bundles, version)
    if is_now_current and finished.clusters is not None:
        tqdm.write(
            publish_run_cluster_map(
                finished.clusters, sampler, options.store, options.bundles / version
            )
        )
    return RunResult(version, is_now_current, build_example(inputs.data, config))


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


def build_checkpoint(
    bundles: Path,
    data: Dataset,
    config: RunConfig,
    *,
    follow: bool = False,
    warm_from: str | None = None,
    behaviour: str | None = None,
) -> Checkpoint:
    """Return the checkpoint of the run with this dataset, configuration, seed and options."""
    values = config.model_dump(mode="json", include=CHECKPOINT_KEYS)
    del values["training"]["checkpoint_interval_s"]
    identity = [data.fingerprint, values, *(["follows"] if follow else [])]
    identity += [{"warm_from": warm_from}] if warm_from else []
    identity += [{BEHAVIOUR: behaviour}] if behaviour else []
    text = json.dumps(identity, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    return Checkpoint(bundles / ".checkpoints" / f"{key[:16]}.safetensors", key)


def behaviour_digest(config: RunConfig) -> str | None:
    """Return the SHA-256 of the behaviour file; None without one, or if it cannot be read."""
    path = config.clusters.behaviour_file
    with suppress(OSError, ValueError):  # building the cluster map reports it
        return sha256_of(Path(path)) if path else None
    return None


def build_worse_error(report: Report, bundles: Path, version: str) -> WorseThanPopularityError:
    """Build the error for a model that is worse than the popularity baseline."""
    model, popular = (report[name][PRIMARY_METRIC] for name in ("model", "popularity"))
    rollback = module_command("index", "rollback", str(bundles), version)
    return WorseThanPopularityError(
        f"{bundles / version}: published but not made current: found test {PRIMARY_METRIC} "
        f"{model:.4f}, expected at least {popular:.4f} of the popularity baseline; train longer, "
        f"add data, or make it current with `{rollback}`"
    )


def is_current(config: RunConfig, data: Dataset, options: RunOptions) -> bool:
    """Return whether the current bundle has this dataset and configuration, refitted or not."""
    try:
        bundle = BundleRegistry(options.bundles).current()
        manifest = read_manifest(bundle)
    except BundleError:
        return False
    same_config = manifest.run.get("config") == config.model_dump(mode="json")
    same_config &= (get_refit(manifest) is not None) == options.refit
    same_config &= manifest.run.get("training", {}).get(BEHAVIOUR) == behaviour_digest(config)
    if not same_config or manifest.dataset.fingerprint != data.fingerprint:
        return False
    try:
        published = read_table(bundle / "items.parquet")
    except UNREADABLE_FILE:
        return False
    written = BytesIO()  # Parquet does not keep every type
    pq.write_table(data.attributes, written)
    return has_columns(published, pq.read_table(written))


def has_columns(published: pa.Table, attributes: pa.Table) -> bool:
    """Return whether a published table begins with these rows and columns.

    Items that were added later come last, and may have brought columns that the others lack.
    """
    first = published.slice(0, len(attributes))
    added = set(first.column_names) - set(attributes.column_names)
    if any(first[name].null_count < len(first) for name in added):
        return False
    return all(
        name in first.column_names and is_equal(first[name], attributes[name])
        for name in attributes.column_names
    )


def is_equal(published: pa.ChunkedArray, values: pa.ChunkedArray) -> bool:
    """Compare two columns; NaN equals NaN, unlike in `equals`."""
    if pa.types.is_null(values.type):  # added items may have given it a type
        return bool(len(published) == len(values) == published.null_count)
    if pa.types.is_floating(values.type) and published.type == values.type:
        is_same_null = bool(published.is_null().equals(values.is_null()))
        return is_same_null and np.array_equal(
            published.to_numpy(), values.to_numpy(), equal_nan=True
        )
    return bool(published.equals(values))


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
