"""Stages of a run: train towers, stage and evaluate a bundle, publish it; a refit repeats them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from index.bundle.manifest import IndexFacts
from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.cluster_map_registry import ClusterMapRegistry
from index.ingest.published_columns import PublishedColumns
from index.publish.writer import add_metrics
from index.search.retriever import Retriever
from trainer.bundle_export import FinishedRun, stage_bundle
from trainer.checkpoint import Checkpoint
from trainer.comparison import describe_refit
from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.distributed import is_main_rank, on_main_rank
from trainer.evaluate import Report, evaluate
from trainer.memory import release_freed_memory
from trainer.metrics import build_evaluation_set
from trainer.refit import (
    Evaluated,
    load_evaluated,
    refit_config,
    save_evaluated,
    use_all_interactions,
)
from trainer.sampler_factory import get_cluster_map, open_sampler
from trainer.samplers.base import Sampler
from trainer.train_loop import train
from trainer.training_data import build_training_data, sample_validation_cases
from trainer.warm_start import WarmStart, list_warm_rows

LEAK = (
    "the metrics are too high if the warm start's bundle was trained on interactions that are held "
    "out now: its split is another one, or a random one of fewer interactions; use the same split "
    "by time"
)


@dataclass(frozen=True)
class RunInputs:
    """What towers are trained on and from.

    Attributes:
        columns: columns of the items table to publish.
        followed: store whose cluster maps negatives are sampled with; None for the run's own map.
        warm_start: bundle to start from, or None.
        evaluated: results of the run before the refit; None if this is not a refit.
    """

    config: RunConfig
    data: Dataset
    columns: PublishedColumns
    followed: ClusterMapRegistry | None
    warm_start: WarmStart | None
    evaluated: Evaluated | None = None


def evaluate_once(
    inputs: RunInputs, registry: BundleRegistry, checkpoint: Checkpoint, kept: Path
) -> Evaluated:
    """Train and evaluate the run before a refit, or load what an interrupted command kept of it."""
    evaluated = on_main_rank(lambda: load_evaluated(kept) if checkpoint.path.exists() else None)
    if evaluated is None:
        with note_saved(checkpoint):
            finished, _ = train_towers(inputs, checkpoint)
            evaluated = on_main_rank(lambda: evaluate_and_keep(registry, finished, kept))
    interactions = len(inputs.data.interactions.parts)
    tqdm.write(f"refit: {evaluated.epochs} epochs on all {interactions:,} interactions")
    return evaluated


def evaluate_and_keep(registry: BundleRegistry, finished: FinishedRun, kept: Path) -> Evaluated:
    """Evaluate the towers in a staged bundle that is not published, and keep the results."""
    with registry.stage() as staged:
        report = stage_evaluated(staged, finished, datetime.now(UTC))
    evaluated = Evaluated(report, finished.trained.progress)
    report["notes"].append(describe_refit(build_refit_facts(evaluated, finished.data)))
    save_evaluated(kept, evaluated)
    return evaluated


def build_refit_facts(evaluated: Evaluated, data: Dataset) -> dict[str, int]:
    """Build `run.training.refit` of the manifest."""
    return {"epochs": evaluated.epochs, "interactions": len(data.interactions.parts)}


def train_towers(inputs: RunInputs, checkpoint: Checkpoint) -> tuple[FinishedRun, Sampler]:
    """Train new towers; in a refit on all interactions, and for the epochs chosen before."""
    config, data = inputs.config, inputs.data
    lineage: dict[str, Any] = {}
    restore, limited = None, config
    if inputs.evaluated is not None:
        lineage["refit"] = build_refit_facts(inputs.evaluated, data)
        limited = refit_config(config, inputs.evaluated.epochs)
        data = use_all_interactions(data)
    if inputs.warm_start is not None:
        lineage["warm_from"] = inputs.warm_start.folder.name
        lineage["warm_from_split"] = inputs.warm_start.manifest.dataset.split
        warm_ids = [data.item_ids[row] for row in list_warm_rows(data)]
        restore = partial(inputs.warm_start.restore, warm_ids)
    training_data = build_training_data(data, config)
    with open_sampler(data, config, inputs.followed, kept=checkpoint.map_folder) as sampler:
        release_freed_memory()
        own_checkpoint = checkpoint if is_main_rank() else None
        trained = train(training_data, sampler, limited, own_checkpoint, restore)
    if inputs.evaluated is not None:  # they tune the index
        cases = sample_validation_cases(inputs.data, config)
        training_data = replace(training_data, validation=cases)
    finished = FinishedRun(
        config=config,
        data=data,
        training_data=training_data,
        trained=trained,
        clusters=get_cluster_map(sampler),
        columns=inputs.columns,
        evaluated=inputs.evaluated,
        lineage=lineage,
    )
    return finished, sampler


@contextmanager
def note_saved(checkpoint: Checkpoint) -> Iterator[None]:
    """Add what a checkpoint holds to an interruption."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(checkpoint.describe())
        raise


def publish(registry: BundleRegistry, finished: FinishedRun) -> tuple[str, Report]:
    """Stage a bundle, evaluate it unless it is a refit, and publish it.

    Returns:
        The version, and the evaluation report, which the manifest also contains.
    """
    with registry.stage() as staged:
        now = datetime.now(UTC)
        report = stage_evaluated(staged, finished, now)
        return registry.publish(staged, now), report


def stage_evaluated(staged: Path, finished: FinishedRun, now: datetime) -> Report:
    """Stage a bundle and evaluate it through the serving path; return its report.

    A refit has the report of the run before it.
    """
    release_freed_memory()
    manifest = stage_bundle(staged, finished, now)
    tqdm.write(render_index_summary(manifest.index))
    retriever = Retriever(open_bundle(staged))
    if finished.evaluated is not None:
        report = finished.evaluated.report
    else:
        evaluation_set = build_evaluation_set(finished.data, finished.config)
        report = evaluate(retriever, evaluation_set, finished.config.evaluation)
        before, split = finished.lineage.get("warm_from_split"), finished.data.split
        if before is not None and (before != split or "seeded random" in split):
            report["notes"].append(LEAK)
    add_metrics(staged, {"test": report})
    return report


def render_index_summary(card: IndexFacts) -> str:
    """Summarise the ANN index: its factory string and its recall against exact search."""
    probes = f", nprobe {card.nprobe}" if card.nprobe else ""
    recall = ", ".join(f"@{count} {share:.4f}" for count, share in card.recall.items())
    return f"index: {card.factory}{probes}; recall against exact search {recall or 'exact'}"
