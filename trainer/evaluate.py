"""Offline evaluation of a staged bundle through the serving `Retriever`.

Full ranking over all unseen items, with popularity and EASE as baselines.
"""

from typing import Any

import numpy as np
from tabulate import tabulate

from index.arrays import Rows
from index.search.query import Query
from index.search.retriever import Retriever
from trainer.baselines import rank_baselines
from trainer.config import EvaluationConfig
from trainer.metrics import (
    DEPTH,
    EvaluationSet,
    compute_bucket_metrics,
    compute_metrics,
    rank_targets,
)
from trainer.progress import progress_bar

CHUNK = 256  # histories per retrieve call

Report = dict[str, Any]


def evaluate(retriever: Retriever, evaluated: EvaluationSet, config: EvaluationConfig) -> Report:
    """Evaluate model, popularity and EASE on the same cases.

    Returns:
        method -> metrics; "buckets" -> method -> bucket -> recall; "cases"; "notes".
    """
    num_items = len(evaluated.counts)
    ranked = {"model": rank_by_retriever(retriever, evaluated)}
    ranked |= rank_baselines(evaluated, config)
    report: Report = {"cases": len(evaluated.cases.user_rows), "notes": [], "buckets": {}}
    if "ease" not in ranked:
        report["notes"].append(
            f"EASE skipped: {num_items:,} items, the limit is {config.ease_items_limit:,}"
        )
    for method, rows in ranked.items():
        ranks = rank_targets(rows, evaluated.cases)
        report[method] = compute_metrics(rows, ranks, num_items)
        report["buckets"][method] = compute_bucket_metrics(ranks, evaluated.counts)
    return report


def rank_by_retriever(retriever: Retriever, evaluated: EvaluationSet) -> Rows:
    """Retrieve the candidates of every case; [cases, DEPTH], padded with -1."""
    cases, ids = evaluated.cases, evaluated.item_ids
    count = len(cases.user_rows)
    ranked = np.full((count, DEPTH), -1, dtype=np.int32)
    for start in progress_bar(range(0, count, CHUNK), desc="evaluate", unit=" chunks", leave=False):
        chosen = range(start, min(start + CHUNK, count))
        queries = [
            Query(DEPTH, history=[ids[row] for row in cases.histories.get(case)]) for case in chosen
        ]
        for case, result in zip(chosen, retriever.retrieve(queries), strict=True):
            ranked[case, : len(result.rows)] = result.rows
    return ranked


def render_report(report: Report) -> str:
    """Render a report as tables for the terminal."""
    methods = [name for name in ("model", "popularity", "ease") if name in report]
    columns = list(report["model"])
    lines = [[name, *(report[name][column] for column in columns)] for name in methods]
    overall = tabulate(lines, ["", *columns], floatfmt=".4f")
    buckets = tabulate(
        [
            [bucket, f"{int(metrics['targets']):,}"]
            + [report["buckets"][name][bucket].get("recall@50") for name in methods]
            for bucket, metrics in report["buckets"]["model"].items()
        ],
        ["recall@50 by popularity", "targets", *methods],
        floatfmt=".4f",
        missingval="-",
    )
    return "\n\n".join([f"{report['cases']:,} test cases", overall, buckets, *report["notes"]])
