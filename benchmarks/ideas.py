"""Experimental variants of ESANS with in-batch negatives, one function each.

    OMP_NUM_THREADS=1 python -m benchmarks.ideas --data ../shared/data/amazon_instruments

They encode nothing beyond the batch, correct it by log q, and differ in how they use the cluster
map. Results are in `docs/experiments.md`. An idea that wins moves to the trainer.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor

from benchmarks.compare.subset import Subset, load_subset
from benchmarks.compare.trial import measure_towers
from index.arrays import Rows
from index.cluster_map import ClusterMap
from trainer.config import validate_config
from trainer.esans.build_map import build_cluster_map
from trainer.esans.interpolation import interpolate_simple, normalize_virtual, sample_alpha
from trainer.esans.residual_kmeans import train_centroids
from trainer.samplers.base import SampledNegatives, Sampler, StepContext
from trainer.samplers.simple import sample_in_batch
from trainer.train_loop import train
from trainer.training_data import build_training_data

Idea = Callable[[ClusterMap], Sampler]
SHOWN = ("validation_recall@50", "recall@50", "recall@200", "ndcg@50", "tail_recall@50")


@dataclass(frozen=True)
class IdeaTrial:
    """An idea and the configuration of its cluster map."""

    idea: Idea
    clusters: dict[str, Any] = field(default_factory=dict)


def plain(_: ClusterMap) -> Sampler:
    """In-batch with logQ, the baseline of all ideas."""
    return sample_in_batch


def same_cell_masking(clusters: ClusterMap) -> Sampler:
    """Mask the batch's items in the cell of the positive."""

    def sample(context: StepContext) -> SampledNegatives:
        return _masked(sample_in_batch(context), clusters.is_same_cell, context)

    return sample


def own_vectors(every: int) -> Idea:
    """Mask by clusters of the model's own item vectors, rebuilt every `every` steps."""

    def idea(clusters: ClusterMap) -> Sampler:
        codes: list[NDArray[np.int64]] = []

        def sample(context: StepContext) -> SampledNegatives:
            if context.step % every == 0 and context.step:
                codes[:] = [_codes_of(context, len(clusters), len(clusters) // 8)]
            sampled = sample_in_batch(context)
            if not codes:
                return sampled
            code = codes[0][_rows(context)]
            same = torch.from_numpy(code[:, None] == code)
            return replace(sampled, is_masked=sampled.is_masked | same)

        return sample

    return idea


def routed(weight: float) -> Idea:
    """Weight the batch's items by a power of the easy proposal; samples nothing."""

    def idea(clusters: ClusterMap) -> Sampler:
        def sample(context: StepContext) -> SampledNegatives:
            sampled, rows = sample_in_batch(context), _rows(context)
            lift = len(clusters) * clusters.easy_probability(rows, rows)  # 1: as uniform
            log_lift = torch.from_numpy(np.log(np.maximum(lift, 1e-9)).astype(np.float32))
            return _masked(
                replace(sampled, log_q=sampled.log_q - weight * log_lift),
                clusters.is_same_cell,
                context,
            )

        return sample

    return idea


def harder_half(context: StepContext) -> SampledNegatives:
    """Keep the half of the batch with the highest corrected scores for each row."""
    sampled = sample_in_batch(context)
    with torch.no_grad():
        scores = context.queries @ sampled.vectors.T / 0.07 - sampled.log_q
        scores = scores.masked_fill(sampled.is_masked, -torch.inf)
        kept = scores.topk(scores.shape[1] // 2, dim=1).indices
        is_kept = torch.zeros_like(sampled.is_masked).scatter_(1, kept, True)
    return replace(sampled, is_masked=sampled.is_masked | ~is_kept)


def prior(clusters: ClusterMap) -> Sampler:
    """Weight by the estimated probability that an item is not a false negative.

    The rate of known positives of the user is estimated over the steps so far, separately for
    batch items in the same cell, the same cluster or neither; log(1 - rate) is added.
    """
    seen, known = np.ones(3), np.zeros(3)

    def sample(context: StepContext) -> SampledNegatives:
        sampled, rows = sample_in_batch(context), _rows(context)
        code = clusters.codes1[rows]
        relation = np.where(
            clusters.is_same_cell(rows, rows), 0, np.where(code[:, None] == code, 1, 2)
        )
        counted = rows[:, None] != rows  # without the positive itself
        is_seen = sampled.is_masked.numpy()
        seen[:] += np.bincount(relation[counted], minlength=3)
        known[:] += np.bincount(relation[counted & is_seen], minlength=3)
        offset = np.log(1 - known / seen)[relation].astype(np.float32)
        return replace(sampled, log_q=sampled.log_q - torch.from_numpy(offset))

    return sample


def smoothed(share: float) -> Idea:
    """Correct by popularity smoothed over an item's cell."""

    def idea(clusters: ClusterMap) -> Sampler:
        cells = clusters.layout.cells
        counts = np.maximum(np.bincount(cells), 1)

        def sample(context: StepContext) -> SampledNegatives:
            own = context.target_share.numpy()
            means = np.bincount(cells, own) / counts
            mixed = ((1 - share) * own + share * means[cells]).astype(np.float32)
            return sample_in_batch(replace(context, target_share=torch.from_numpy(mixed)))

        return sample

    return idea


def simple_in_batch(clusters: ClusterMap) -> Sampler:
    """Simple EDIS between two batch items of one cluster, with the mean log q of both."""

    def sample(context: StepContext) -> SampledNegatives:
        sampled, rows = sample_in_batch(context), _rows(context)
        others = _partners(_is_near(clusters, rows), context)
        first = torch.nonzero(others >= 0).squeeze(1)
        second = others[first]
        share = sample_alpha((len(first),), 0, 1, context.rng, context.positives.device)
        mixed = interpolate_simple(context.positives[first], context.positives[second], share)
        log_q = (sampled.log_q[first] + sampled.log_q[second]) / 2
        is_masked = sampled.is_masked[:, first] | sampled.is_masked[:, second]
        return replace(
            sampled, next_set=SampledNegatives(normalize_virtual(mixed), log_q, is_masked)
        )

    return sample


def hard_in_batch(weight: float, low: float, high: float, hard_warmup_steps: int = 0) -> Idea:
    """Hard EDIS with a batch item of the positive's cluster; the positive is detached.

    Args:
        weight: Added to the score divided by the softmax temperature.
        low: Minimum of alpha.
        high: Maximum of alpha.
        hard_warmup_steps: Steps over which the weight rises to 0; 0 for a constant weight.
    """

    def idea(clusters: ClusterMap) -> Sampler:
        def sample(context: StepContext) -> SampledNegatives:
            sampled, rows = sample_in_batch(context), _rows(context)
            others = _partners(_is_near(clusters, rows) & ~sampled.is_masked, context)
            share = sample_alpha((len(rows),), low, high, context.rng, others.device)[:, None]
            hard = context.positives[others.clamp(min=0)]
            mixed = share * context.positives.detach() + (1 - share) * hard
            now = (
                weight * max(0.0, 1 - context.step / hard_warmup_steps)
                if hard_warmup_steps
                else weight
            )
            virtual = SampledNegatives(
                normalize_virtual(mixed)[:, None],
                (sampled.log_q[others.clamp(min=0)] - now)[:, None],
                (others < 0)[:, None],
            )
            return replace(sampled, next_set=virtual)

        return sample

    return idea


BEHAVIOUR = {"modalities": ["behavioural"]}
TRIALS = {
    "in-batch": IdeaTrial(plain),
    "same-cell masking": IdeaTrial(same_cell_masking),
    "same-cell masking, K1 = 20": IdeaTrial(same_cell_masking, {"level_1_codes": 20}),
    "same-cell masking, K1 = 400": IdeaTrial(same_cell_masking, {"level_1_codes": 400}),
    "same-cell masking, K2 = 4": IdeaTrial(same_cell_masking, {"level_2_codes": 4}),
    "same-cell masking, behaviour only": IdeaTrial(same_cell_masking, BEHAVIOUR),
    "same-cell masking, content only": IdeaTrial(
        same_cell_masking, {"modalities": ["textual", "visual"]}
    ),
    "masking by own vectors": IdeaTrial(own_vectors(200)),
    "routed 1.0": IdeaTrial(routed(1.0)),
    "routed 0.3": IdeaTrial(routed(0.3)),
    "routed -0.1": IdeaTrial(routed(-0.1)),
    "harder half": IdeaTrial(lambda _: harder_half),
    "prior": IdeaTrial(prior),
    "smoothed 0.3": IdeaTrial(smoothed(0.3)),
    "smoothed 0.7": IdeaTrial(smoothed(0.7)),
    "simple in batch": IdeaTrial(simple_in_batch),
    "hard in batch, -2": IdeaTrial(hard_in_batch(-2, -0.5, 0.5)),
    "hard in batch, -4": IdeaTrial(hard_in_batch(-4, -0.5, 0.5)),
    "hard in batch, beyond": IdeaTrial(hard_in_batch(0, -0.5, 0.0)),
    "hard in batch, growing": IdeaTrial(hard_in_batch(-6, -0.5, 0.5, hard_warmup_steps=1_000)),
}


def _rows(context: StepContext) -> Rows:
    return context.positive_rows.numpy().astype(np.int32)


def _masked(
    sampled: SampledNegatives, same: Callable[[Rows, Rows], NDArray[np.bool_]], context: StepContext
) -> SampledNegatives:
    rows = _rows(context)
    return replace(sampled, is_masked=sampled.is_masked | torch.from_numpy(same(rows, rows)))


def _is_near(clusters: ClusterMap, rows: Rows) -> Tensor:
    """Mark pairs in the same cluster but different cells, [batch, batch]."""
    code = clusters.codes1[rows]
    return torch.from_numpy((code[:, None] == code) & ~clusters.is_same_cell(rows, rows))


def _partners(is_match: Tensor, context: StepContext) -> Tensor:
    """Sample a matching batch position for each row, -1 where none matches; [batch]."""
    has_match = is_match.any(dim=1)
    weights = is_match.float() + (~has_match[:, None]).float()
    sampled = torch.multinomial(weights, 1, generator=context.rng).squeeze(1)
    return torch.where(has_match, sampled, -1)


def _codes_of(context: StepContext, count: int, code_count: int) -> NDArray[np.int64]:
    """Cluster the current item vectors; [items]."""
    with torch.no_grad():
        vectors = context.encode(torch.arange(count)).numpy()
    centroids = train_centroids(vectors, code_count, seed=0)
    codes: NDArray[np.int64] = (vectors @ centroids.T).argmax(axis=1)
    return codes


def measure(trial: IdeaTrial, subset: Subset, seed: int) -> list[float | str | None]:
    """Train with an idea and the usual logQ correction, else by default; return the metrics."""
    training = {"device": "cpu", "positive_log_q": True}
    values = {"seed": seed, "clusters": trial.clusters, "training": training}
    config, data = validate_config(values, "the trial"), load_subset(subset)
    training_data = build_training_data(data, config)
    clusters = build_cluster_map(data, config.clusters, seed, datetime.now(UTC))
    trained = train(training_data, trial.idea(clusters), config)
    figures, _ = measure_towers(training_data, data, trained)
    return [trained.progress.best_epoch + 1, *(figures[name] for name in SHOWN)]


def main() -> None:
    """Run the selected ideas; print a line after each, then the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ideas", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the dataset")
    parser.add_argument("--limit", type=int, metavar="COUNT", help="interactions; default all")
    parser.add_argument("--seed", type=int, default=0, metavar="SEED", help="(0)")
    parser.add_argument("--ideas", nargs="+", choices=TRIALS, default=list(TRIALS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    subset = Subset(args.data, args.limit, "auto", 0)
    lines = []
    for name in args.ideas:
        with (
            Path(os.devnull).open("w") as devnull,
            contextlib.redirect_stderr(devnull),
            contextlib.redirect_stdout(devnull),
        ):
            lines.append([name, *measure(TRIALS[name], subset, args.seed)])
        print(lines[-1], file=sys.stderr, flush=True)
    titles = ["idea", "best epoch", *(name.replace("_recall", "") for name in SHOWN)]
    print(tabulate(lines, titles, floatfmt=".4f", tablefmt="pipe"))


if __name__ == "__main__":
    main()
