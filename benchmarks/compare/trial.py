"""Trial: one method, budget, seed and dataset, trained and evaluated.

Evaluation uses the embeddings of the towers and an exact full ranking. No bundle is built: the
losses of the ANN index and of the export are measured elsewhere.

Cases are resampled with a fixed seed, the same for all trials with the same number of cases. A
trial stores its recall over each resample, a thousand numbers without user data, so trials of
different sessions and machines can be paired.
"""

import hashlib
import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.compare.monitor import EVERY, SamplerMonitor
from benchmarks.compare.subset import Subset, load_subset
from index.arrays import Rows
from trainer.checkpoint import Progress
from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.interactions import (
    TEST,
    VALID,
    Cases,
    build_cases,
    build_histories,
    sample_cases,
    training_counts,
)
from trainer.metrics import (
    DEPTH,
    MIN_CASES,
    TargetRanks,
    case_recalls,
    compute_bucket_metrics,
    compute_metrics,
    rank_targets,
)
from trainer.sampler_factory import build_required_map, build_sampler
from trainer.samplers.base import Sampler
from trainer.samplers.config import EsansConfig
from trainer.seen_items import build_seen_items
from trainer.train_loop import TrainedTowers, train
from trainer.training_data import TrainingData, build_training_data
from trainer.validation import rank_unseen, validation_recall

METRICS_VERSION = 1  # increase it when metrics change their meaning: all trials then run again
RECALL_COUNTS = (50, 200)
RESAMPLES = 1_000
MAX_CASES = 50_000  # sampled in larger datasets
IGNORED_SETTINGS = {"checkpoint_interval_s", "device", "threads"}

Figures = dict[str, float | str | None]
Resamples = NDArray[np.float64]
Recalls = dict[int, Resamples]  # count -> [1 + resamples], see `resampled_means`


@dataclass(frozen=True)
class Trial:
    """One training of a study.

    Attributes:
        budget: Items encoded per step; None if the method has no budget.
        fingerprint: Of the subset's data.
    """

    dataset: str
    method: str
    budget: int | None
    config: RunConfig
    subset: Subset
    fingerprint: str

    @property
    def digest(self) -> str:
        """Digest of data and configuration, independent of names."""
        sections = {"seed", "towers", "training"}
        if isinstance(self.config.training.sampler, EsansConfig):
            sections.add("clusters")
        values = self.config.model_dump(mode="json", include=sections)
        for name in IGNORED_SETTINGS:
            del values["training"][name]
        text = json.dumps([METRICS_VERSION, self.fingerprint, values], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def __str__(self) -> str:
        budget = "" if self.budget is None else f" {self.budget}"
        temperature = self.config.training.temperature
        return f"{self.dataset}: {self.method}{budget}, {temperature:g}, {self.config.seed}"


def run_trial(trial: Trial) -> tuple[Figures, Recalls]:
    """Train as `python -m trainer run` does, and evaluate.

    Raises:
        TrainingError: Training failed.
    """
    start, cpu_start = time.monotonic(), time.process_time()
    config = trial.config
    torch.set_num_threads(config.training.threads)
    data = load_subset(trial.subset)
    training_data = build_training_data(data, config)
    clusters = build_required_map(data, config, datetime.now(UTC))
    sampler = monitored(build_sampler(config.training.sampler, clusters), training_data, data)
    trained = train(training_data, sampler, config)
    figures, ranks = measure_towers(training_data, data, trained)
    figures |= training_figures(trained.progress, sampler)
    figures["seconds"] = time.monotonic() - start
    figures["cpu_seconds"] = time.process_time() - cpu_start
    return figures, recalls_of(ranks)


def monitored(sampler: Sampler, training_data: TrainingData, data: Dataset) -> SamplerMonitor:
    """Wrap a sampler to record statistics of its negatives."""
    held_out = build_histories(data.interactions, (VALID, TEST), len(data.user_ids))
    positives = build_seen_items(held_out, len(data.item_ids), training_data.device)
    return SamplerMonitor(sampler, positives, training_data.loader.batches_per_epoch(), EVERY)


def measure_towers(
    training_data: TrainingData, data: Dataset, trained: TrainedTowers
) -> tuple[Figures, TargetRanks]:
    """Evaluate on validation and test cases, the same ones in all trials."""
    tower, item_tower = trained.towers.user, trained.towers.item
    vectors = training_data.features.encode_all(item_tower)
    num_users, num_items = len(data.user_ids), len(data.item_ids)
    valid, test = (
        sample_cases(
            build_cases(data.interactions, part, num_users), MAX_CASES, np.random.default_rng(part)
        )
        for part in (VALID, TEST)
    )
    encode = vectors.__getitem__
    ranked = rank_unseen(tower, encode, num_items, test.histories, DEPTH)
    ranks = rank_targets(ranked, test)
    figures: Figures = {
        "cases": len(test.user_rows),
        "validation_recall@50": validation_recall(tower, encode, num_items, valid),
        **compute_metrics(ranked, ranks, num_items),
    }
    counts = training_counts(data.interactions, num_items)
    figures["warm_recall@50"] = warm_recall(ranked, test, counts)
    buckets = compute_bucket_metrics(ranks, counts)
    for name, metrics in buckets.items():
        figures |= {f"{name}_{metric}": value for metric, value in metrics.items()}
    return figures, ranks


def warm_recall(ranked: Rows, cases: Cases, counts: NDArray[np.int64]) -> float | None:
    """Compute the recall@50 of warm targets if cold items are left out of the ranking.

    Unlike recall@50, it does not depend on how high cold items are scored among warm ones. A case
    with fewer than 50 warm items in its ranking counts as if there were no more. None for fewer
    than 200 targets.
    """
    is_warm = (counts > 0)[ranked] & (ranked >= 0)
    order = np.argsort(~is_warm, axis=1, kind="stable")
    warm = np.take_along_axis(np.where(is_warm, ranked, -1), order, axis=1)
    ranks = rank_targets(warm, cases)
    chosen = ranks.ranks[counts[ranks.targets] > 0]
    return float((chosen < 50).mean()) if len(chosen) >= MIN_CASES else None


def training_figures(progress: Progress, monitor: SamplerMonitor) -> Figures:
    """Collect statistics of training; excludes the time of the monitor."""
    seconds = sum(epoch["seconds"] for epoch in progress.curve) - monitor.seconds
    return {
        "steps": progress.step,
        "epochs": len(progress.curve),
        "best_epoch": progress.best_epoch + 1,
        "seconds_per_step": seconds / progress.step,
        **monitor.figures(),
    }


def recalls_of(ranks: TargetRanks, counts: Collection[int] = RECALL_COUNTS) -> Recalls:
    """Compute the resampled recalls that significance is tested with."""
    return {count: resampled_means(case_recalls(ranks, count)) for count in counts}


def resampled_means(values: Resamples, resamples: int = RESAMPLES) -> Resamples:
    """Compute the mean over the cases, and over bootstrap resamples of them.

    The resamples depend only on the number of cases.

    Args:
        values: [cases], recall of each case.
        resamples: Number of resamples.

    Returns:
        [1 + resamples], the mean over the original cases first.
    """
    rng = np.random.default_rng([len(values), resamples])
    means = [values.mean()]
    means += [values[rng.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    return np.array(means)
