"""Measure what will answer online: the staged bundle itself, asked through `index.Retriever`.

Full ranking over all items, seen items removed; popularity and EASE beside the model.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from index.retriever import Retriever
from trainer.config import EvaluationConfig
from trainer.data.histories import Cases, Histories
from trainer.data.interactions import Rows
from trainer.measures import DEPTH, measure, measure_buckets, rank_targets
from trainer.references import ease, popularity

CHUNK = 256  # histories encoded at once

Report = dict[str, Any]


def answers_of(retriever: Retriever, cases: Cases, item_ids: Sequence[str]) -> Rows:
    """Ask the retriever every case; [cases, DEPTH], -1 where fewer items are eligible.

    item_ids  of the rows that cases and answers tell; the bundle numbers the same items its way
    """
    count = len(cases.user_rows)
    own = retriever.bundle.items.rows_of(item_ids)
    row_of = np.argsort(own).astype(np.int32)
    answers = np.full((count, DEPTH), -1, dtype=np.int32)
    for first in tqdm(range(0, count, CHUNK), desc="evaluate", unit=" chunks", leave=False):
        chosen = range(first, min(first + CHUNK, count))
        histories = [own[cases.histories.of(case)] for case in chosen]
        queries = retriever.encode(histories)
        for case, history, query in zip(chosen, histories, queries, strict=True):
            rows, _ = retriever.search(query, DEPTH, np.unique(history))
            answers[case, : len(rows)] = row_of[rows]
    return answers


def evaluate(
    retriever: Retriever,
    item_ids: Sequence[str],
    cases: Cases,
    train: Histories,
    counts: NDArray[np.int64],
    config: EvaluationConfig,
) -> Report:
    """Measure model, popularity and EASE on the same cases.

    item_ids  of the rows that all the others tell: all items of the bundle
    counts    [items]  training positives
    returns   method -> measures; "buckets" -> method -> bucket -> recall; notes
    """
    item_count = len(counts)
    ranked = {
        "model": answers_of(retriever, cases, item_ids),
        "popularity": popularity(counts, cases),
    }
    report: Report = {"cases": len(cases.user_rows), "notes": [], "buckets": {}}
    if item_count <= config.ease_items_limit:
        ranked["ease"] = ease(train, cases, item_count, config.ease_lambda)
    else:
        report["notes"].append(
            f"EASE skipped: {item_count:,} items, the limit is {config.ease_items_limit:,}"
        )
    for method, answers in ranked.items():
        ranks = rank_targets(answers, cases)
        report[method] = measure(answers, ranks, item_count)
        report["buckets"][method] = measure_buckets(ranks, counts)
    return report


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
