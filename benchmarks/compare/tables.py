"""Result tables of a study, as Parquet and Markdown."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import StrictUndefined, Template

from benchmarks.compare.analysis import (
    BEST,
    FIXED_LIST,
    SPREAD,
    at_budget,
    compare,
    finished_trials,
    fixed_list_of,
    name_of,
    pool,
    summarize,
)
from benchmarks.compare.runner import Failures
from benchmarks.compare.schedule import Schedule
from benchmarks.compare.subset import StudyDataset, load_subset
from benchmarks.compare.trial import RECALL_COUNTS
from index.fsio import write_json
from trainer.baselines import choose_ease_lambda, rank_baselines
from trainer.config import EvaluationConfig, RunConfig
from trainer.metrics import (
    MIN_CASES,
    MetricValues,
    build_evaluation_set,
    compute_metrics,
    rank_targets,
)

TEMPLATE = Path(__file__).with_name("table.md.j2")
BASELINE_NAMES = {"popularity": "popularity", "ease": "EASE"}
SHOWN = ["recall@50", "recall@200", "ndcg@50"]
BUCKETS = ("head", "torso", "tail", "cold")


def write_tables(schedule: Schedule, failures: Failures, now: datetime) -> tuple[Path, int]:
    """Write table.md, table.parquet, rows.parquet; return table.md and the missing trials."""
    folder, budget = schedule.store.folder, schedule.study.budget
    summary = summarize(schedule)
    lines = pd.concat([summary.drop(columns="recalls"), compare(summary, budget)], axis=1)
    write_parquet(lines, folder / "table.parquet")
    write_parquet(finished_trials(schedule), folder / "rows.parquet")
    datasets = [
        {
            "name": name,
            "summary": dataset.summary,
            "baselines": baselines_of(dataset, folder),
            **dataset_tables(lines[lines.dataset == name], budget),
        }
        for name, dataset in schedule.reported.items()
    ]
    template = Template(
        TEMPLATE.read_text(encoding="utf-8"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = template.render(
        day=f"{now:%Y-%m-%d}",
        min_cases=MIN_CASES,
        budget=budget,
        datasets=datasets,
        pooled=pooled_table(at_budget(summary, budget), schedule.study.references),
        missing=list(missing_lines(lines, failures)),
        metrics_text=metrics_text,
    )
    path = folder / "table.md"
    path.write_text(text, encoding="utf-8")
    return path, int((lines.seeds_planned - lines.seeds).sum())


def write_parquet(rows: pd.DataFrame, path: Path) -> None:
    """Write a small table in which every number is a float and a missing value is null."""
    numbers = rows.select_dtypes("number").columns
    table = pa.Table.from_pandas(rows.astype(dict.fromkeys(numbers, float)), preserve_index=False)
    small = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table.replace_schema_metadata(None), path, store_schema=False, **small)


def baselines_of(dataset: StudyDataset, folder: Path) -> dict[str, MetricValues]:
    """Evaluate popularity and EASE on a dataset's test part, or load their metrics.

    They are cached in baselines.json: data fingerprint -> baseline -> metrics. EASE is skipped
    above the default limit of items.
    """
    path, key = folder / "baselines.json", dataset.fingerprint[:24]
    cached: dict[str, dict[str, MetricValues]] = {}
    if path.exists():
        cached = json.loads(path.read_text(encoding="utf-8"))
    if key not in cached:
        config = RunConfig(evaluation=EvaluationConfig(max_cases=0))
        evaluation = build_evaluation_set(load_subset(dataset.subset), config)
        ease_lambda = choose_ease_lambda(evaluation, config.evaluation)
        cached[key] = {
            BASELINE_NAMES[name]: compute_metrics(
                ranked, rank_targets(ranked, evaluation.cases), len(evaluation.counts)
            )
            for name, ranked in rank_baselines(evaluation, ease_lambda)
        }
        write_json(path, cached)
    return cached[key]


def dataset_tables(lines: pd.DataFrame, budget: int) -> dict[str, Any]:
    """Render the tables of one dataset: methods, budgets, negatives, popularity buckets."""
    finished = lines[lines.seeds > 0]
    compared = at_budget(finished, budget)
    varied = lines[lines.budget.notna() & (lines.budget != budget)].method
    by_budget = finished[finished.method.isin(varied)]
    best = column(compared, BEST).dropna()
    fixed = fixed_list_of(lines, budget)
    return {
        "methods": methods_table(compared),
        "best": best.iloc[0] if len(best) else "-",
        "fixed_count": len(fixed),
        "fixed": {name: column(fixed, name).mean() for name in SHOWN},
        "budgets": "" if by_budget.empty else budget_table(by_budget),
        "negatives": negatives_table(finished),
        "buckets": bucket_table(compared),
    }


def pooled_table(lines: pd.DataFrame, references: Sequence[str]) -> str:
    """Render the methods on average over the datasets; empty without references."""
    pooled = pool(lines, references) if references else pd.DataFrame()
    if pooled.empty:
        return ""
    compared = {
        f"@{count} over {name}": differences(pooled, f"recall@{count}_over_{name}")
        for name in references
        for count in RECALL_COUNTS
    }
    columns = {
        "method": pooled.method,
        **{name: formatted(column(pooled, name)) for name in SHOWN[:2]},
        **compared,
        "tail": formatted(column(pooled, "tail_recall@50")),
        "cold": formatted(column(pooled, "cold_recall@50")),
        "warm items alone": formatted(column(pooled, "warm_recall@50")),
        "held-out positives, %": formatted(100 * column(pooled, "false_negative_share")),
        "CPU ms": formatted(1_000 * column(pooled, "cpu_seconds_per_step"), "{:.1f}"),
        "encoded a step": formatted(column(pooled, "encoded_per_step"), "{:,.0f}"),
    }
    return markdown(columns)


def methods_table(lines: pd.DataFrame) -> str:
    """Render the methods at the comparison budget."""
    columns = {
        "method": lines.method,
        "kind": lines.kind,
        "budget": formatted(lines.budget, "{:.0f}"),
        "seeds": lines.seeds.astype(str) + " of " + lines.seeds_planned.astype(str),
        "temperature": formatted(lines.temperature, "{:g}"),
        "validation recall@50": formatted(column(lines, "validation_recall@50")),
        **{name: with_spread(lines, name) for name in SHOWN},
        "@50 over the fixed list's mean": differences(lines, f"recall@50_over_{FIXED_LIST}"),
        **against_best(lines, "the best baseline"),
        **costs(lines),
    }
    return markdown(columns)


def budget_table(lines: pd.DataFrame) -> str:
    """Render the methods that vary by budget, each against the best baseline in its budget."""
    columns = {
        "method": lines.method,
        "budget": formatted(lines.budget, "{:.0f}"),
        **{name: with_spread(lines, name) for name in SHOWN[:2]},
        "best baseline": formatted(column(lines, BEST), "{}"),
        **against_best(lines, "it"),
        **costs(lines),
    }
    return markdown(columns)


def negatives_table(lines: pd.DataFrame) -> str:
    """Render false negatives, hardness and variety of the negatives."""
    columns = {
        "method": lines.method,
        "budget": formatted(lines.budget, "{:.0f}"),
        "held-out positives, %": formatted(100 * column(lines, "false_negative_share")),
        "mean score": formatted(column(lines, "negative_score")),
        "distinct items an epoch": formatted(column(lines, "distinct_per_epoch"), "{:,.1f}"),
        "counted of": formatted(column(lines, "health_of"), "{}"),
        "coverage@50": formatted(column(lines, "coverage@50")),
        "epochs": formatted(column(lines, "epochs"), "{:,.1f}"),
    }
    return markdown(columns)


def bucket_table(lines: pd.DataFrame) -> str:
    """Render recall@50 by popularity bucket, with counts of targets, and of warm items alone."""
    columns = {"method": lines.method}
    for name in BUCKETS:
        count = column(lines, f"{name}_targets").fillna(0).head(1).sum()
        columns[f"{name} ({count:,.0f})"] = formatted(column(lines, f"{name}_recall@50"))
    columns["warm items alone"] = formatted(column(lines, "warm_recall@50"))
    return markdown(columns)


def missing_lines(lines: pd.DataFrame, failures: Failures) -> Iterator[str]:
    """List the missing trials and the failures of this session."""
    for _, line in lines[lines.seeds < lines.seeds_planned].iterrows():
        reason = ", its temperature is not chosen yet" if pd.isna(line.temperature) else ""
        progress = f"{line.seeds} of {line.seeds_planned} seeds"
        yield f"- {line.dataset}: {name_of(line)}: {progress}{reason}"
    for trial, failure in failures.items():
        yield f"- failed: {trial}: {failure}"


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Format the main metrics."""
    return ", ".join(
        f"{name} -" if pd.isna(metrics[name]) else f"{name} {metrics[name]:.4f}" for name in SHOWN
    )


def column(lines: pd.DataFrame, name: str) -> pd.Series:
    """Return a column, or missing values if it does not exist."""
    return lines[name] if name in lines else pd.Series(float("nan"), lines.index)


def formatted(values: pd.Series, pattern: str = "{:.4f}") -> pd.Series:
    """Format values; "-" where missing."""
    return values.map(lambda value: "-" if pd.isna(value) else pattern.format(value)).astype(object)


def with_spread(lines: pd.DataFrame, name: str) -> pd.Series:
    """Format a mean and its standard deviation over the seeds."""
    spread = column(lines, name + SPREAD)
    return formatted(column(lines, name)) + formatted(spread, " ± {:.4f}").replace("-", "")


def differences(lines: pd.DataFrame, name: str) -> pd.Series:
    """Format relative differences with intervals, in percent."""
    value, low, high = (
        formatted(100 * column(lines, name + end), "{:+.1f}") for end in ("", "_low", "_high")
    )
    return (value + " % [" + low + ", " + high + "]").where(value != "-", "-")


def against_best(lines: pd.DataFrame, name: str) -> dict[str, pd.Series]:
    """Columns of the comparison with the best baseline."""
    return {
        f"@50 over {name}": differences(lines, f"recall@50_over_{BEST}"),
        "p": formatted(column(lines, f"recall@50_over_{BEST}_p_holm")),
        f"@200 over {name}": differences(lines, f"recall@200_over_{BEST}"),
    }


def costs(lines: pd.DataFrame) -> dict[str, pd.Series]:
    """Columns of the cost of a step."""
    return {
        "ms a step": formatted(1_000 * column(lines, "seconds_per_step"), "{:.1f}"),
        "CPU ms": formatted(1_000 * column(lines, "cpu_seconds_per_step"), "{:.1f}"),
        "CPU min a trial": formatted(column(lines, "cpu_seconds") / 60, "{:.1f}"),
        "encoded a step": formatted(column(lines, "encoded_per_step"), "{:,.0f}"),
    }


def markdown(columns: Mapping[str, pd.Series]) -> str:
    """Render columns of text as a Markdown table."""
    table: str = pd.DataFrame(columns).to_markdown(index=False, disable_numparse=True)
    return table
