"""Evaluate what will be served: the staged bundle itself, through `index.Retriever`.

Full ranking over all items, seen items removed; popularity and EASE beside the model.
"""

from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from index.arrays import Rows
from index.search.query import Query
from index.search.retriever import Retriever
from trainer.baselines import rank_baselines
from trainer.config import EvaluationConfig
from trainer.metrics import DEPTH, EvaluationSet, bucket_metrics, compute_metrics, rank_targets

CHUNK = 256  # histories encoded at once

Report = dict[str, Any]


def evaluate(retriever: Retriever, asked: EvaluationSet, config: EvaluationConfig) -> Report:
    """Evaluate model, popularity and EASE on the same cases.

    returns  method -> metrics; "buckets" -> method -> bucket -> recall; notes
    """
    num_items = len(asked.counts)
    ranked = {"model": rank_by_retriever(retriever, asked), **rank_baselines(asked, config)}
    report: Report = {"cases": len(asked.cases.user_rows), "notes": [], "buckets": {}}
    if "ease" not in ranked:
        report["notes"].append(
            f"EASE skipped: {num_items:,} items, the limit is {config.ease_items_limit:,}"
        )
    for method, rows in ranked.items():
        ranks = rank_targets(rows, asked.cases)
        report[method] = compute_metrics(rows, ranks, num_items)
        report["buckets"][method] = bucket_metrics(ranks, asked.counts)
    return report


def rank_by_retriever(retriever: Retriever, asked: EvaluationSet) -> Rows:
    """Query the retriever for every case; [cases, DEPTH], -1 where fewer items are eligible."""
    cases, ids = asked.cases, asked.item_ids
    count = len(cases.user_rows)
    ranked = np.full((count, DEPTH), -1, dtype=np.int32)
    for first in tqdm(range(0, count, CHUNK), desc="evaluate", unit=" chunks", leave=False):
        chosen = range(first, min(first + CHUNK, count))
        queries = [
            Query(DEPTH, history=[ids[row] for row in cases.histories.of(case)]) for case in chosen
        ]
        for case, result in zip(chosen, retriever.retrieve(queries), strict=True):
            ranked[case, : len(result.rows)] = result.rows
    return ranked


def table_of(report: Report) -> str:
    """Lay a report out for the terminal."""
    methods = [name for name in ("model", "popularity", "ease") if name in report]
    columns = list(report["model"])
    lines = [[name, *(report[name][column] for column in columns)] for name in methods]
    whole = tabulate(lines, ["", *columns], floatfmt=".4f")
    buckets = tabulate(
        [
            [bucket, f"{int(found['targets']):,}"]
            + [report["buckets"][name][bucket].get("recall@50") for name in methods]
            for bucket, found in report["buckets"]["model"].items()
        ],
        ["recall@50 by popularity", "targets", *methods],
        floatfmt=".4f",
        missingval="-",
    )
    return "\n\n".join([f"{report['cases']:,} test cases", whole, buckets, *report["notes"]])
