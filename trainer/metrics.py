"""Offline metrics: recall, NDCG and coverage."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.arrays import Rows
from trainer.data.dataset import Dataset
from trainer.data.interactions import (
    TEST,
    TRAIN,
    Cases,
    ItemLists,
    build_cases,
    build_histories,
    training_counts,
)

COUNTS = (20, 50, 200)
DEPTH = max(COUNTS)
COVERAGE_COUNT = 50
CHUNK = 10_000  # targets ranked at once
MIN_CASES = 200  # buckets with fewer targets report no recall, as it would be noise
HEAD_SHARE, TORSO_SHARE = 0.1, 0.5  # of the items, by popularity

MetricValues = dict[str, float]


@dataclass(frozen=True)
class EvaluationSet:
    """Test cases, and the training data that baselines are fitted on.

    Attributes:
        item_ids: ids in row order.
        cases: test cases.
        train: training history of every user.
        counts: [items], training positives.
    """

    item_ids: list[str]
    cases: Cases
    train: ItemLists
    counts: NDArray[np.int64]


def build_evaluation_set(data: Dataset) -> EvaluationSet:
    """Build the evaluation set of a dataset's test part."""
    num_users, interactions = len(data.user_ids), data.interactions
    return EvaluationSet(
        item_ids=data.item_ids,
        cases=build_cases(interactions, TEST, num_users),
        train=build_histories(interactions, (TRAIN,), num_users),
        counts=training_counts(interactions, len(data.item_ids)),
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


def compute_metrics(ranked: Rows, ranks: TargetRanks, num_items: int) -> MetricValues:
    """Compute recall and NDCG at COUNTS, averaged over cases, and catalogue coverage at 50.

    Recall is the share of a case's targets that were retrieved; the ideal of NDCG ranks all
    of them first. Coverage is the share of all items among the first 50 of any case.
    """
    metrics: MetricValues = {}
    target_counts = np.bincount(ranks.case_of, minlength=len(ranked))
    for count in COUNTS:
        is_hit = ranks.ranks < count
        hits = np.bincount(ranks.case_of, is_hit, len(ranked))
        gains = np.bincount(ranks.case_of, is_hit / np.log2(ranks.ranks + 2), len(ranked))
        ideal = np.cumsum(1 / np.log2(np.arange(count) + 2))
        best = ideal[np.minimum(target_counts, count) - 1]
        metrics[f"recall@{count}"] = float((hits / target_counts).mean())
        metrics[f"ndcg@{count}"] = float((gains / best).mean())
    shown = np.unique(ranked[:, :COVERAGE_COUNT])
    metrics[f"coverage@{COVERAGE_COUNT}"] = float((shown >= 0).sum() / num_items)
    return metrics


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
