"""One trial: one method, one budget, one seed on one dataset, trained and measured.

What is measured are the item vectors and queries of the towers themselves, by an exact full
ranking. No bundle is made: what an index or an exported file loses is measured elsewhere.
"""

import hashlib
import json
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.compare.monitor import EVERY, SamplerMonitor
from benchmarks.compare.significance import Floats, resampled_means
from benchmarks.compare.subset import Subset, load_subset
from trainer.catalogue import training_counts
from trainer.checkpoint import Checkpoint, Progress
from trainer.config import RunConfig
from trainer.course import Course, fresh_towers, prepare
from trainer.data.dataset import Dataset
from trainer.data.histories import Cases, cases, histories
from trainer.data.interactions import TEST, VALID, Rows
from trainer.known import known_positives
from trainer.measures import DEPTH, Ranks, measure, measure_buckets, rank_targets
from trainer.sampler_choice import build_sampler, clusters_for
from trainer.samplers.interface import Sampler
from trainer.towers import UserTower
from trainer.training import Trained, train
from trainer.validation import queries_of, validation_recall

MEASURED_AS = 1  # raise it when figures change their meaning: all trials are then run again
RECALL_COUNTS = (50, 200)
CHUNK = 1_000  # cases ranked at once
NOT_OF_A_RUN = {"checkpoint_s", "device", "threads"}

Figures = dict[str, float | str | None]
Recalls = dict[int, Floats]  # count -> [1 + resamples], see `significance.resampled_means`


@dataclass(frozen=True)
class Trial:
    """A training to run.

    budget       items encoded a step; None where the method has none to set
    fingerprint  of the data of the subset
    uses_map     whether the cluster map's configuration matters
    """

    dataset: str
    method: str
    budget: int | None
    config: RunConfig
    subset: Subset
    fingerprint: str
    uses_map: bool

    @property
    def digest(self) -> str:
        """Identify the trial by data and configuration, not by what they are called."""
        sections = {"seed", "towers", "training"} | ({"clusters"} if self.uses_map else set())
        values = self.config.model_dump(mode="json", include=sections)
        for name in NOT_OF_A_RUN:
            del values["training"][name]
        text = json.dumps([MEASURED_AS, self.fingerprint, values], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def __str__(self) -> str:
        budget = "" if self.budget is None else f" {self.budget}"
        temperature = self.config.training.temperature
        return f"{self.dataset}: {self.method}{budget}, {temperature:g}, {self.config.seed}"


class NoCheckpoint(Checkpoint):
    """Keeps nothing: a killed trial starts again, so that its figures are of one run."""

    def save(self, tensors: dict[str, Tensor], progress: Progress) -> None:
        """Let it pass."""

    def load(self) -> None:
        """Find nothing."""


def run_trial(trial: Trial) -> tuple[Figures, Recalls]:
    """Train as `python -m trainer run` does, and measure.

    Raises TrainingError where training cannot go on.
    """
    began, cpu_began = time.monotonic(), time.process_time()
    config = trial.config
    torch.set_num_threads(config.training.threads)
    data = load_subset(trial.subset)
    course = prepare(data, config)
    clusters = clusters_for(data, config, datetime.now(UTC))
    sampler = build_sampler(config.training.sampler, clusters)
    monitor = monitored(sampler, course, data)
    trained = train(
        fresh_towers(course, data, config),
        course,
        monitor,
        config.training,
        config.towers.id_dropout,
        NoCheckpoint(Path(os.devnull), ""),
    )
    figures, ranks = measure_towers(course, data, trained)
    figures |= training_figures(trained, monitor)
    figures["seconds"] = time.monotonic() - began
    figures["cpu_seconds"] = time.process_time() - cpu_began
    return figures, recalls_of(ranks)


def monitored(sampler: Sampler, course: Course, data: Dataset) -> SamplerMonitor:
    """Wrap a sampler to record its draws."""
    held_out = histories(data.interactions, (VALID, TEST), len(data.user_ids))
    known = known_positives(held_out, len(data.item_ids), course.device)
    return SamplerMonitor(sampler, known, course.batches.batches_per_epoch(), EVERY)


def measure_towers(course: Course, data: Dataset, trained: Trained) -> tuple[Figures, Ranks]:
    """Measure validation and test; all validation cases, not the sample that training asks."""
    tower, vectors = trained.towers.user, course.catalogue.encode_all(trained.towers.item)
    user_count = len(data.user_ids)
    valid = cases(data.interactions, VALID, user_count)
    test = cases(data.interactions, TEST, user_count)
    answers = rank_all(tower, vectors, test)
    ranks = rank_targets(answers, test)
    figures: Figures = {
        "cases": len(test.user_rows),
        "validation_recall@50": validation_recall(tower, vectors, valid),
        **measure(answers, ranks, len(vectors)),
    }
    for name, found in measure_buckets(ranks, training_counts(data)).items():
        figures |= {f"{name}_{measured}": value for measured, value in found.items()}
    return figures, ranks


@torch.no_grad()
def rank_all(tower: UserTower, vectors: Tensor, asked: Cases) -> Rows:
    """Answer every case exactly; [cases, DEPTH], -1 where fewer items are eligible."""
    answers = np.full((len(asked.user_rows), DEPTH), -1, dtype=np.int32)
    depth = min(DEPTH, len(vectors))
    for first in range(0, len(answers), CHUNK):
        chosen = range(first, min(first + CHUNK, len(answers)))
        scores = queries_of(tower, vectors, asked.histories, chosen) @ vectors.T
        for place, case in enumerate(chosen):
            seen = torch.from_numpy(asked.histories.of(case)).long()
            scores[place, seen] = -torch.inf
        best = scores.topk(depth, dim=1)
        rows = best.indices.masked_fill(torch.isneginf(best.values), -1)
        answers[chosen.start : chosen.stop, :depth] = rows.cpu().numpy()
    return answers


def training_figures(trained: Trained, monitor: SamplerMonitor) -> Figures:
    """Gather how training went; the monitor's own time is not part of a step's."""
    seconds = sum(epoch["seconds"] for epoch in trained.curve) - monitor.seconds
    return {
        "steps": trained.steps,
        "epochs": len(trained.curve),
        "best_epoch": trained.best_epoch + 1,
        "seconds_per_step": seconds / trained.steps,
        **monitor.figures(),
    }


def recalls_of(ranks: Ranks, counts: Collection[int] = RECALL_COUNTS) -> Recalls:
    """Keep of the ranks what the significance of a difference is judged by."""
    target_counts = np.bincount(ranks.case_of)
    return {
        count: resampled_means(
            np.bincount(ranks.case_of, ranks.ranks < count, len(target_counts)) / target_counts
        )
        for count in counts
    }
