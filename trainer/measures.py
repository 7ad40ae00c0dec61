"""Recall, NDCG, coverage: from ranked rows and held-out targets to numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.histories import Cases
from trainer.data.interactions import Rows

COUNTS = (20, 50, 200)
DEPTH = max(COUNTS)
COVERAGE_COUNT = 50
LEAST_CASES = 200  # no figure for fewer: it would be noise
HEAD_SHARE, TORSO_SHARE = 0.1, 0.5  # of the items, by popularity

Measures = dict[str, float]


@dataclass(frozen=True)
class Ranks:
    """Where each held-out item stands in its case's answer.

    case_of  [targets]  which case a target belongs to
    targets  [targets]  item rows
    ranks    [targets]  0 is first; DEPTH where it is not among the first DEPTH
    """

    case_of: NDArray[np.int64]
    targets: Rows
    ranks: NDArray[np.int64]


def rank_targets(answers: Rows, cases: Cases) -> Ranks:
    """Find the targets in the answers.

    answers  [cases, DEPTH]  item rows, best first; -1 where there are fewer
    """
    case_of = np.repeat(np.arange(len(cases.user_rows)), np.diff(cases.targets.offsets))
    targets = cases.targets.item_rows
    ranks = np.full(len(targets), DEPTH, dtype=np.int64)
    for first in range(0, len(targets), 100_000):
        part = slice(first, first + 100_000)
        is_hit = answers[case_of[part]] == targets[part, None]  # [targets, DEPTH]
        ranks[part] = np.where(is_hit.any(axis=1), is_hit.argmax(axis=1), DEPTH)
    return Ranks(case_of, targets, ranks)


def measure(answers: Rows, ranks: Ranks, item_count: int) -> Measures:
    """Average over the cases: recall and NDCG at COUNTS, and coverage of the catalogue.

    Recall is the share of a case's targets found; NDCG's ideal puts all of them first.
    Coverage is the share of all items that stand in anyone's first 50.
    """
    measures: Measures = {}
    target_counts = np.bincount(ranks.case_of, minlength=len(answers))
    for count in COUNTS:
        is_hit = ranks.ranks < count
        hits = np.bincount(ranks.case_of, is_hit, len(answers))
        gains = np.bincount(ranks.case_of, is_hit / np.log2(ranks.ranks + 2), len(answers))
        ideal = np.cumsum(1 / np.log2(np.arange(count) + 2))
        best = ideal[np.minimum(target_counts, count) - 1]
        measures[f"recall@{count}"] = float((hits / target_counts).mean())
        measures[f"ndcg@{count}"] = float((gains / best).mean())
    shown = np.unique(answers[:, :COVERAGE_COUNT])
    measures[f"coverage@{COVERAGE_COUNT}"] = float((shown >= 0).sum() / item_count)
    return measures


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


def measure_buckets(ranks: Ranks, counts: NDArray[np.int64]) -> dict[str, Measures]:
    """Recall over targets by their popularity; below 200 targets the count alone."""
    measured: dict[str, Measures] = {}
    for name, is_in in buckets_of(counts).items():
        chosen = ranks.ranks[is_in[ranks.targets]]
        measured[name] = {"targets": len(chosen)}
        if len(chosen) >= LEAST_CASES:
            measured[name] |= {f"recall@{n}": float((chosen < n).mean()) for n in COUNTS}
    return measured
