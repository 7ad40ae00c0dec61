"""Offline evaluation of a staged bundle through the serving `Retriever`.

Full ranking over all unseen items, with popularity and EASE as baselines.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from tabulate import tabulate

from index.arrays import Rows
from index.search.query import Query
from index.search.retriever import Retriever
from trainer.baselines import choose_ease_lambda, rank_baselines
from trainer.config import EvaluationConfig
from trainer.metrics import (
    DEPTH,
    EvaluationSet,
    compute_bucket_metrics,
    compute_intervals,
    compute_metrics,
    rank_targets,
)
from trainer.progress import progress_bar

CHUNK = 256  # histories per retrieve call

Report = dict[str, Any]


def evaluate(retriever: Retriever, evaluated: EvaluationSet, config: EvaluationConfig) -> Report:
    """Evaluate model, popularity and EASE on the same cases, one ranking in memory at a time.

    Returns:
        method -> metrics; "intervals" -> method -> metric -> low, high; "buckets" -> method ->
        bucket -> recall; "cases", "total_cases"; "ease_lambda"; "notes".
    """
    num_items = len(evaluated.counts)
    ease_lambda = choose_ease_lambda(evaluated, config)
    report: Report = {
        "cases": len(evaluated.cases.user_rows),
        "total_cases": evaluated.total_cases,
        "ease_lambda": ease_lambda,
        "notes": [describe_ease(ease_lambda, num_items, config)],
        "intervals": {},
        "buckets": {},
    }
    for method, ranked in rank_methods(retriever, evaluated, ease_lambda):
        ranks = rank_targets(ranked, evaluated.cases)
        report[method] = compute_metrics(ranked, ranks, num_items)
        report["intervals"][method] = compute_intervals(ranks)
        report["buckets"][method] = compute_bucket_metrics(ranks, evaluated.counts)
    return report


def rank_methods(
    retriever: Retriever, evaluated: EvaluationSet, ease_lambda: float | None
) -> Iterator[tuple[str, Rows]]:
    """Yield each method's name and ranking, [cases, DEPTH]."""
    yield "model", rank_by_retriever(retriever, evaluated)
    yield from rank_baselines(evaluated, ease_lambda)


def describe_ease(ease_lambda: float | None, num_items: int, config: EvaluationConfig) -> str:
    """Describe which lambda EASE has, or why it was skipped."""
    if ease_lambda is None:
        return f"EASE skipped: {num_items:,} items, the limit is {config.ease_items_limit:,}"
    if len(config.ease_lambdas) == 1:
        return f"EASE: lambda {ease_lambda:g}"
    grid = ", ".join(f"{value:g}" for value in config.ease_lambdas)
    return f"EASE: lambda {ease_lambda:g}, chosen on validation from {grid}"


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
    parts = [_describe_cases(report), overall, _describe_intervals(report), buckets]
    return "\n\n".join([*parts, *report["notes"]])


def _describe_cases(report: Report) -> str:
    cases, total = report["cases"], report["total_cases"]
    return f"{cases:,} test cases" + (f", sampled from {total:,}" if cases < total else "")


def _describe_intervals(report: Report) -> str:
    """Describe the model's intervals; no line of it starts with a method's name."""
    values = [
        f"{name} {low:.4f} to {high:.4f}"
        for name, (low, high) in report["intervals"]["model"].items()
        if name.startswith("recall")
    ]
    return f"95 % intervals of the model: {', '.join(values)}"
