"""Offline metrics: recall, NDCG and coverage, and the cases that they are computed on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.arrays import Rows
from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.interactions import (
    TEST,
    TRAIN,
    VALID,
    Cases,
    ItemLists,
    build_cases,
    build_histories,
    sample_cases,
    training_counts,
)

COUNTS = (20, 50, 200)
DEPTH = max(COUNTS)
COVERAGE_COUNT = 50
METRIC_NAMES = [  # in the order of tables
    *(f"{kind}@{count}" for kind in ("recall", "ndcg") for count in COUNTS),
    f"coverage@{COVERAGE_COUNT}",
]
CHUNK = 10_000  # targets ranked at once
Z_95 = 1.96  # standard errors of a 95 % normal interval
MIN_CASES = 200  # buckets with fewer targets report no recall, as it would be noise
HEAD_SHARE, TORSO_SHARE = 0.1, 0.5  # of the items, by popularity

MetricValues = dict[str, float]


@dataclass(frozen=True)
class EaseData:
    """Data that EASE is fitted on and its lambda chosen with.

    Attributes:
        train: training history of every user.
        validation: validation cases.
    """

    train: ItemLists
    validation: Cases


@dataclass(frozen=True)
class EvaluationSet:
    """Test cases, and the training data that baselines are fitted on.

    Attributes:
        item_ids: ids in row order.
        cases: test cases, sampled.
        total_cases: number of test cases before sampling.
        counts: [items], training positives.
        ease: None if there are too many items for EASE.
    """

    item_ids: list[str]
    cases: Cases
    total_cases: int
    counts: NDArray[np.int64]
    ease: EaseData | None


def build_evaluation_set(data: Dataset, config: RunConfig) -> EvaluationSet:
    """Build the evaluation set of a dataset's test part, for the configuration of a run."""
    num_users, interactions = len(data.user_ids), data.interactions
    cases, ease = build_cases(interactions, TEST, num_users), None
    if len(data.item_ids) <= config.evaluation.ease_items_limit:
        ease = EaseData(
            build_histories(interactions, (TRAIN,), num_users),
            sample_cases(
                build_cases(interactions, VALID, num_users),
                config.training.validation_cases,
                np.random.default_rng([config.seed, VALID]),
            ),
        )
    total = len(cases.user_rows)
    rng = np.random.default_rng([config.seed, TEST])
    return EvaluationSet(
        item_ids=data.item_ids,
        cases=sample_cases(cases, config.evaluation.max_cases or total, rng),
        total_cases=total,
        counts=training_counts(interactions, len(data.item_ids)),
        ease=ease,
    )


@dataclass(frozen=True)
class TargetRanks:
    """Rank of each held-out item.

    Attributes:
        case_of: [targets], case of each target.
        targets: [targets], item rows.
        ranks: [targets], from 0; DEPTH if not among the first DEPTH.
    """

    case_of: NDArray[np.int64]
    targets: Rows
    ranks: NDArray[np.int64]


def rank_targets(ranked: Rows, cases: Cases) -> TargetRanks:
    """Compute the ranks of the targets.

    Args:
        ranked: [cases, DEPTH], item rows, best first, padded with -1.
        cases: cases with their targets.
    """
    case_of = np.repeat(np.arange(len(cases.user_rows)), np.diff(cases.targets.offsets))
    targets = cases.targets.item_rows
    ranks = np.full(len(targets), DEPTH, dtype=np.int64)
    for start in range(0, len(targets), CHUNK):
        part = slice(start, start + CHUNK)
        is_hit = ranked[case_of[part]] == targets[part, None]  # [targets, DEPTH]
        ranks[part] = np.where(is_hit.any(axis=1), is_hit.argmax(axis=1), DEPTH)
    return TargetRanks(case_of, targets, ranks)


def case_recalls(ranks: TargetRanks, count: int) -> NDArray[np.float64]:
    """Compute the recall@count of each case, the share of its targets that were retrieved."""
    hits = np.bincount(ranks.case_of, ranks.ranks < count)
    return hits / np.bincount(ranks.case_of)


def case_ndcgs(ranks: TargetRanks, count: int) -> NDArray[np.float64]:
    """Compute the NDCG@count of each case; the ideal ranks all targets first."""
    gains = np.bincount(ranks.case_of, (ranks.ranks < count) / np.log2(ranks.ranks + 2))
    ideal = np.cumsum(1 / np.log2(np.arange(count) + 2))
    best: NDArray[np.float64] = ideal[np.minimum(np.bincount(ranks.case_of), count) - 1]
    return gains / best


def case_metrics(ranks: TargetRanks) -> dict[str, NDArray[np.float64]]:
    """Compute recall and NDCG at COUNTS; metric -> [cases]."""
    return {
        f"{name}@{count}": compute(ranks, count)
        for count in COUNTS
        for name, compute in (("recall", case_recalls), ("ndcg", case_ndcgs))
    }


def compute_metrics(ranked: Rows, ranks: TargetRanks, num_items: int) -> MetricValues:
    """Compute recall and NDCG at COUNTS, averaged over cases, and catalogue coverage at 50.

    Coverage is the share of all items among the first 50 of any case.
    """
    metrics = {name: float(values.mean()) for name, values in case_metrics(ranks).items()}
    is_shown = np.zeros(num_items + 1, dtype=np.bool_)
    is_shown[ranked[:, :COVERAGE_COUNT]] = True  # -1 is the last
    metrics[f"coverage@{COVERAGE_COUNT}"] = float(is_shown[:-1].sum() / num_items)
    return metrics


def compute_intervals(ranks: TargetRanks) -> dict[str, tuple[float, float]]:
    """Compute each mean's normal 95 % interval from the standard error over the cases."""
    intervals = {}
    for name, values in case_metrics(ranks).items():
        mean = float(values.mean())
        margin = Z_95 * float(values.std()) / max(1, len(values) - 1) ** 0.5
        intervals[name] = (max(0.0, mean - margin), min(1.0, mean + margin))
    return intervals


def popularity_buckets(counts: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Split the items by training positives into head, torso, tail and cold (none).

    Head is the most popular 10 % of the items, torso the next 40 %, tail the rest (our choice).
    """
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(counts), dtype=np.int64)
    rank[order] = np.arange(len(counts))
    is_cold = counts == 0
    head, torso = round(HEAD_SHARE * len(counts)), round(TORSO_SHARE * len(counts))
    return {
        "head": (rank < head) & ~is_cold,
        "torso": (rank >= head) & (rank < torso) & ~is_cold,
        "tail": (rank >= torso) & ~is_cold,
        "cold": is_cold,
    }


def compute_bucket_metrics(
    ranks: TargetRanks, counts: NDArray[np.int64]
) -> dict[str, MetricValues]:
    """Compute recall per popularity bucket; with fewer than 200 targets only their count."""
    metrics: dict[str, MetricValues] = {}
    for name, is_in in popularity_buckets(counts).items():
        chosen = ranks.ranks[is_in[ranks.targets]]
        metrics[name] = {"targets": len(chosen)}
        if len(chosen) >= MIN_CASES:
            metrics[name] |= {f"recall@{n}": float((chosen < n).mean()) for n in COUNTS}
    return metrics
