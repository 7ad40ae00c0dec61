"""Recall, NDCG and coverage: from ranked rows and held-out targets to numbers."""

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
    cases,
    histories,
    training_counts,
)

COUNTS = (20, 50, 200)
DEPTH = max(COUNTS)
COVERAGE_COUNT = 50
MIN_CASES = 200  # no figure for fewer: it would be noise
HEAD_SHARE, TORSO_SHARE = 0.1, 0.5  # of the items, by popularity

MetricValues = dict[str, float]


@dataclass(frozen=True)
class EvaluationSet:
    """What is evaluated on the test part, and what baselines are fitted on.

    item_ids  in row order
    train     every user's training history
    counts    [items]  training positives
    """

    item_ids: list[str]
    cases: Cases
    train: ItemLists
    counts: NDArray[np.int64]


def build_evaluation_set(data: Dataset) -> EvaluationSet:
    """Gather the test cases of a dataset."""
    num_users, interactions = len(data.user_ids), data.interactions
    return EvaluationSet(
        item_ids=data.item_ids,
        cases=cases(interactions, TEST, num_users),
        train=histories(interactions, (TRAIN,), num_users),
        counts=training_counts(interactions, len(data.item_ids)),
    )


@dataclass(frozen=True)
class TargetRanks:
    """Where each held-out item stands in its case's ranking.

    case_of  [targets]  which case a target belongs to
    targets  [targets]  item rows
    ranks    [targets]  0 is first; DEPTH where it is not among the first DEPTH
    """

    case_of: NDArray[np.int64]
    targets: Rows
    ranks: NDArray[np.int64]


def rank_targets(ranked: Rows, cases: Cases) -> TargetRanks:
    """Find the targets in the rankings.

    ranked  [cases, DEPTH]  item rows, best first; -1 where there are fewer
    """
    case_of = np.repeat(np.arange(len(cases.user_rows)), np.diff(cases.targets.offsets))
    targets = cases.targets.item_rows
    ranks = np.full(len(targets), DEPTH, dtype=np.int64)
    for first in range(0, len(targets), 100_000):
        part = slice(first, first + 100_000)
        is_hit = ranked[case_of[part]] == targets[part, None]  # [targets, DEPTH]
        ranks[part] = np.where(is_hit.any(axis=1), is_hit.argmax(axis=1), DEPTH)
    return TargetRanks(case_of, targets, ranks)


def compute_metrics(ranked: Rows, ranks: TargetRanks, num_items: int) -> MetricValues:
    """Average over the cases: recall and NDCG at COUNTS, and coverage of the catalogue.

    Recall is the share of a case's targets found; NDCG's ideal puts all of them first.
    Coverage is the share of all items that stand in anyone's first 50.
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


def buckets_of(counts: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Split the items by training positives: head, torso, tail, and cold, which has none.

    Head are the most popular 10 % of the items, torso the next 40 %, tail the rest. Ours.
    """
    order = np.argsort(-counts, kind="stable")
    place = np.empty(len(counts), dtype=np.int64)
    place[order] = np.arange(len(counts))
    is_cold = counts == 0
    head, torso = round(HEAD_SHARE * len(counts)), round(TORSO_SHARE * len(counts))
    return {
        "head": (place < head) & ~is_cold,
        "torso": (place >= head) & (place < torso) & ~is_cold,
        "tail": (place >= torso) & ~is_cold,
        "cold": is_cold,
    }


def bucket_metrics(ranks: TargetRanks, counts: NDArray[np.int64]) -> dict[str, MetricValues]:
    """Recall over targets by their popularity; below 200 targets the count alone."""
    measured: dict[str, MetricValues] = {}
    for name, is_in in buckets_of(counts).items():
        chosen = ranks.ranks[is_in[ranks.targets]]
        measured[name] = {"targets": len(chosen)}
        if len(chosen) >= MIN_CASES:
            measured[name] |= {f"recall@{n}": float((chosen < n).mean()) for n in COUNTS}
    return measured
