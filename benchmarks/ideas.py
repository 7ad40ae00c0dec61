"""Ideas around ESANS that were tried beside the samplers of the trainer: each a function.

    OMP_NUM_THREADS=1 python -m benchmarks.ideas --data ../shared/data/amazon_instruments

They encode nothing beyond the batch, correct it by log q as in-batch does, and use the map in
another way. `docs/experiments.md` tells what they gave. An idea that wins moves to the trainer.
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
TOLD = ("validation_recall@50", "recall@50", "recall@200", "ndcg@50", "tail_recall@50")


@dataclass(frozen=True)
class IdeaTrial:
    """An idea, and how its map is made."""

    idea: Idea
    clusters: dict[str, Any] = field(default_factory=dict)


def plain(_: ClusterMap) -> Sampler:
    """In-batch with logQ: what all ideas start from."""
    return sample_in_batch


def protected(clusters: ClusterMap) -> Sampler:
    """Mask the batch's items of the positive's own cell."""

    def sample(context: StepContext) -> SampledNegatives:
        return _masked(sample_in_batch(context), clusters.is_same_cell, context)

    return sample


def own_vectors(every: int) -> Idea:
    """Mask by clusters of the model's own item vectors, made anew every so many steps."""

    def idea(clusters: ClusterMap) -> Sampler:
        codes: list[NDArray[np.int64]] = []

        def sample(context: StepContext) -> SampledNegatives:
            if context.step % every == 0 and context.step:
                codes[:] = [_codes_of(context, len(clusters), len(clusters) // 8)]
            drawn = sample_in_batch(context)
            if not codes:
                return drawn
            code = codes[0][_rows(context)]
            same = torch.from_numpy(code[:, None] == code)
            return replace(drawn, is_masked=drawn.is_masked | same)

        return sample

    return idea


def routed(weight: float) -> Idea:
    """Weigh the batch's items by the law of easy negatives to some power: nothing is drawn."""

    def idea(clusters: ClusterMap) -> Sampler:
        def sample(context: StepContext) -> SampledNegatives:
            drawn, rows = sample_in_batch(context), _rows(context)
            lift = len(clusters) * clusters.easy_probability(rows, rows)  # 1: as uniform
            law = torch.from_numpy(np.log(np.maximum(lift, 1e-9)).astype(np.float32))
            return _masked(
                replace(drawn, log_q=drawn.log_q - weight * law), clusters.is_same_cell, context
            )

        return sample

    return idea


def harder_half(context: StepContext) -> SampledNegatives:
    """Keep each row's half of the batch that scores highest, log q subtracted."""
    drawn = sample_in_batch(context)
    with torch.no_grad():
        scores = context.queries @ drawn.vectors.T / 0.07 - drawn.log_q
        scores = scores.masked_fill(drawn.is_masked, -torch.inf)
        kept = scores.topk(scores.shape[1] // 2, dim=1).indices
        is_kept = torch.zeros_like(drawn.is_masked).scatter_(1, kept, True)
    return replace(drawn, is_masked=drawn.is_masked | ~is_kept)


def prior(clusters: ClusterMap) -> Sampler:
    """Weigh by how unlikely an item of that relation is a false negative, as lately seen.

    How often an item of the batch in the same cell, in the same cluster, or in neither is a
    known positive of the row's user, over the steps so far: log(1 - that) is added.
    """
    seen, known = np.ones(3), np.zeros(3)

    def sample(context: StepContext) -> SampledNegatives:
        drawn, rows = sample_in_batch(context), _rows(context)
        code = clusters.codes1[rows]
        relation = np.where(
            clusters.is_same_cell(rows, rows), 0, np.where(code[:, None] == code, 1, 2)
        )
        counted = rows[:, None] != rows  # the positive itself tells nothing
        is_seen = drawn.is_masked.numpy()
        seen[:] += np.bincount(relation[counted], minlength=3)
        known[:] += np.bincount(relation[counted & is_seen], minlength=3)
        offset = np.log(1 - known / seen)[relation].astype(np.float32)
        return replace(drawn, log_q=drawn.log_q - torch.from_numpy(offset))

    return sample


def smoothed(share: float) -> Idea:
    """Correct by popularity that is smoothed over an item's cell."""

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
    """EDIS, simple, between two batch items of one cluster; the law of both anchors."""

    def sample(context: StepContext) -> SampledNegatives:
        drawn, rows = sample_in_batch(context), _rows(context)
        others = _partners(_is_near(clusters, rows), context)
        first = torch.nonzero(others >= 0).squeeze(1)
        second = others[first]
        share = sample_alpha((len(first),), 0, 1, context.rng, context.positives.device)
        mixed = interpolate_simple(context.positives[first], context.positives[second], share)
        law = (drawn.log_q[first] + drawn.log_q[second]) / 2
        is_masked = drawn.is_masked[:, first] | drawn.is_masked[:, second]
        return replace(drawn, next_set=SampledNegatives(normalize_virtual(mixed), law, is_masked))

    return sample


def hard_in_batch(weight: float, low: float, high: float, hard_warmup_steps: int = 0) -> Idea:
    """EDIS, hard, with a batch item of the positive's cluster; no gradient at the positive.

    weight         added to its score, over tau
    hard_warmup_steps  over so many steps the weight rises to 0
    """

    def idea(clusters: ClusterMap) -> Sampler:
        def sample(context: StepContext) -> SampledNegatives:
            drawn, rows = sample_in_batch(context), _rows(context)
            others = _partners(_is_near(clusters, rows) & ~drawn.is_masked, context)
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
                (drawn.log_q[others.clamp(min=0)] - now)[:, None],
                (others < 0)[:, None],
            )
            return replace(drawn, next_set=virtual)

        return sample

    return idea


BEHAVIOUR = {"modalities": ["behavioural"]}
TRIALS = {
    "in-batch": IdeaTrial(plain),
    "protected": IdeaTrial(protected),
    "protected, K1 = 20": IdeaTrial(protected, {"level_1_codes": 20}),
    "protected, K1 = 400": IdeaTrial(protected, {"level_1_codes": 400}),
    "protected, K2 = 4": IdeaTrial(protected, {"level_2_codes": 4}),
    "protected, behaviour alone": IdeaTrial(protected, BEHAVIOUR),
    "protected, content alone": IdeaTrial(protected, {"modalities": ["textual", "visual"]}),
    "protected by own vectors": IdeaTrial(own_vectors(200)),
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
    drawn: SampledNegatives,
    same: Callable[[Rows, Rows], NDArray[np.bool_]],
    context: StepContext,
) -> SampledNegatives:
    rows = _rows(context)
    return replace(drawn, is_masked=drawn.is_masked | torch.from_numpy(same(rows, rows)))


def _is_near(clusters: ClusterMap, rows: Rows) -> Tensor:
    """Tell which two rows are of one cluster but not of one cell; [batch, batch]."""
    code = clusters.codes1[rows]
    return torch.from_numpy((code[:, None] == code) & ~clusters.is_same_cell(rows, rows))


def _partners(fitting: Tensor, context: StepContext) -> Tensor:
    """Draw a fitting place of the batch for each row, -1 where none fits; [batch]."""
    has_one = fitting.any(dim=1)
    chances = fitting.float() + (~has_one[:, None]).float()
    drawn = torch.multinomial(chances, 1, generator=context.rng).squeeze(1)
    return torch.where(has_one, drawn, -1)


def _codes_of(context: StepContext, count: int, code_count: int) -> NDArray[np.int64]:
    """Cluster all item vectors as the model has them now; [items]."""
    with torch.no_grad():
        vectors = context.encode(torch.arange(count)).numpy()
    centroids = train_centroids(vectors, code_count, seed=0)
    codes: NDArray[np.int64] = (vectors @ centroids.T).argmax(axis=1)
    return codes


def measure(trial: IdeaTrial, subset: Subset, seed: int) -> list[float | str | None]:
    """Train with an idea, everything else at its default; return the figures told."""
    values = {"seed": seed, "clusters": trial.clusters, "training": {"device": "cpu"}}
    config, data = validate_config(values, "the trial"), load_subset(subset)
    training_data = build_training_data(data, config)
    clusters = build_cluster_map(data, config.clusters, seed, datetime.now(UTC))
    trained = train(training_data, trial.idea(clusters), config)
    figures, _ = measure_towers(training_data, data, trained)
    return [trained.progress.best_epoch + 1, *(figures[name] for name in TOLD)]


def main() -> None:
    """Run the ideas asked for, a line each as soon as it is known, then the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ideas", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the dataset")
    parser.add_argument("--limit", type=int, metavar="COUNT", help="interactions; default all")
    parser.add_argument("--seed", type=int, default=0, metavar="SEED", help="(0)")
    parser.add_argument("--ideas", nargs="+", choices=TRIALS, default=list(TRIALS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    subset = Subset(asked.data, asked.limit, "auto", 0)
    lines = []
    for name in asked.ideas:
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stderr(nowhere),
            contextlib.redirect_stdout(nowhere),
        ):
            lines.append([name, *measure(TRIALS[name], subset, asked.seed)])
        print(lines[-1], file=sys.stderr, flush=True)
    titles = ["idea", "best epoch", *(name.replace("_recall", "") for name in TOLD)]
    print(tabulate(lines, titles, floatfmt=".4f", tablefmt="pipe"))


if __name__ == "__main__":
    main()
