"""Analysis of a study: means over seeds, and paired differences from the references.

A line is a dataset, a method and a budget. Its references are the mean of the fixed list, and
the best baseline that encodes no more items per step. A study may name further references, with
which the methods are compared on average over the datasets.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from benchmarks.compare.schedule import Schedule
from benchmarks.compare.trial import RECALL_COUNTS, Recalls, Resamples

FIXED_LIST, BEST = "fixed_list", "best_baseline"
BASELINE_KINDS = ("fixed list", "baseline")
SPREAD = "_spread"
INTERVAL = (2.5, 97.5)  # percentiles of a 95 % interval
COSTS = ["seconds", "cpu_seconds", "seconds_per_step", "cpu_seconds_per_step"]


def finished_trials(schedule: Schedule) -> pd.DataFrame:
    """Tabulate every finished trial, including those of temperature tuning."""
    trials = [*schedule.tuning_trials(), *schedule.seed_trials()]
    return pd.DataFrame(
        {
            "dataset": trial.dataset,
            "method": trial.method,
            "budget": trial.budget,
            "seed": trial.config.seed,
            "temperature": trial.config.training.temperature,
            **figures,
            "digest": digest,
        }
        for digest, trial in {trial.digest: trial for trial in trials}.items()
        if (figures := schedule.store.figures(trial)) is not None
    )


def summarize(schedule: Schedule) -> pd.DataFrame:
    """Summarize every dataset, method and budget of the study, finished or not.

    Metrics are means over the seeds, NAME_spread their standard deviation. `recalls` are the
    averaged resamples; empty where those of a trial are missing.
    """
    rows = []
    for dataset, name, budget in schedule.lines():
        trials = schedule.trials_of(dataset, name, budget)
        finished = [trial for trial in trials if schedule.store.has(trial)]
        line = {
            "dataset": dataset,
            "method": name,
            "kind": schedule.study.methods[name].kind,
            "budget": budget,
            "temperature": schedule.temperature_of(dataset, name),
            "seeds": len(finished),
            "seeds_planned": len(schedule.study.seeds_of(name)),
        }
        figures = average(pd.DataFrame([schedule.store.figures(trial) for trial in finished]))
        recalls = mean_recalls([schedule.store.recalls(trial) for trial in finished])
        rows.append(line | figures | {"recalls": recalls})
    return pd.DataFrame(rows).astype({"budget": float, "temperature": float})


def average(trials: pd.DataFrame) -> dict[str, Any]:
    """Average the metrics of one line's trials; keep a text if all trials have the same.

    Costs are those of the first trial, because trials may run on different machines.
    """
    if trials.empty:
        return {}
    costs = [name for name in COSTS if name in trials]
    metrics = trials.drop(columns=costs).select_dtypes("number")
    texts = trials.drop(columns=[*costs, *metrics])
    averaged = dict(metrics.mean(skipna=False))
    if len(trials) > 1:
        averaged |= dict(metrics.std(skipna=False).add_suffix(SPREAD))
    is_same = {name: texts[name].nunique(dropna=False) == 1 for name in texts}
    averaged |= {name: texts[name].iloc[0] if is_same[name] else None for name in texts}
    return averaged | dict(trials[costs].iloc[0])


def mean_recalls(runs: Sequence[Recalls | None]) -> Recalls:
    """Average recalls over trials or methods, resample by resample; empty if one is missing."""
    all_recalls = [recalls for recalls in runs if recalls]
    if not all_recalls or len(all_recalls) < len(runs):
        return {}
    return {
        count: np.mean([recalls[count] for recalls in all_recalls], axis=0)
        for count in RECALL_COUNTS
    }


def compare(lines: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Compare every line with its references; one row per line.

    For recall at 50 and 200: relative difference with interval, absolute difference, p, and
    Holm-adjusted p over the method's datasets. Values are missing where a reference or
    resamples are missing.

    Args:
        lines: From `summarize`.
        budget: Budget at which methods are compared.
    """
    columns = pd.DataFrame(
        [_compare(line, lines[lines.dataset == line.dataset], budget)
         for _, line in lines.iterrows()],
        index=lines.index,
    )  # fmt: skip
    for name in [name for name in columns if name.endswith("_p")]:
        known = columns[name].dropna()
        families = [lines.loc[known.index, key] for key in ("method", "budget")]
        adjusted = known.groupby(families, dropna=False).transform(holm)
        columns[f"{name}_holm"] = adjusted.reindex(columns.index)
    return columns


def at_budget(lines: pd.DataFrame, budget: float | None) -> pd.DataFrame:
    """Return the lines at one budget, and those without a budget."""
    return lines[lines.budget.isna() | (lines.budget == budget)]


def fixed_list_of(lines: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Return one dataset's fixed list at the comparison budget; empty unless it is complete."""
    fixed = at_budget(lines[lines.kind == "fixed list"], budget)
    return fixed if (fixed.seeds > 0).all() else fixed.iloc[:0]


def best_baseline(lines: pd.DataFrame, limit: float) -> pd.Series | None:
    """Return one dataset's baseline with the highest mean validation recall@50.

    Args:
        lines: Of one dataset.
        limit: Maximum of items encoded per step; a baseline without a budget encodes none.
    """
    is_baseline = lines.kind.isin(BASELINE_KINDS) & (lines.seeds > 0)
    eligible = lines[is_baseline & (lines.budget.fillna(0) <= limit)]
    if eligible.empty:
        return None
    return eligible.loc[eligible["validation_recall@50"].fillna(0).idxmax()]


def name_of(line: pd.Series) -> str:
    """Return a line's method, with its budget where it has one."""
    return line.method if pd.isna(line.budget) else f"{line.method} {line.budget:.0f}"


def _compare(line: pd.Series, lines: pd.DataFrame, budget: int) -> dict[str, Any]:
    """Compare a line with the references of its dataset."""
    is_unbudgeted = pd.isna(line.budget)
    best = best_baseline(lines, budget if is_unbudgeted else line.budget)
    columns: dict[str, Any] = {} if best is None else {BEST: name_of(best)}
    references: dict[str, Mapping[int, Any]] = {}
    if best is not None and best.name != line.name:
        references[BEST] = best.recalls
    if is_unbudgeted or line.budget == budget:
        references[FIXED_LIST] = mean_recalls(list(fixed_list_of(lines, budget).recalls))
    return columns | _differences(line.recalls, references)


def pool(lines: pd.DataFrame, references: Sequence[str]) -> pd.DataFrame:
    """Average methods over the datasets, and compare each with the reference methods.

    Different datasets have different users, so the mean of their resamples is a resample of the
    mean. Methods that are not finished on every dataset are left out.

    Args:
        lines: From `summarize`, at one budget.
        references: Methods.
    """
    count, averaged = lines.dataset.nunique(), {}
    for name, group in lines.groupby("method", sort=False):
        recalls = mean_recalls(list(group.recalls))
        if len(group) == count and (group.seeds == group.seeds_planned).all() and recalls:
            means = dict(group.select_dtypes("number").mean(skipna=False))
            averaged[name] = {"method": name, "recalls": recalls} | means
    known = {name: averaged[name]["recalls"] for name in references if name in averaged}
    return pd.DataFrame(
        line | _differences(line["recalls"], {key: known[key] for key in known if key != name})
        for name, line in averaged.items()
    )


def _differences(
    recalls: Mapping[int, Any], references: Mapping[str, Mapping[int, Any]]
) -> dict[str, float]:
    """Compare recalls with those of each reference; missing where one of them is."""
    columns: dict[str, float] = {}
    for reference, others in references.items():
        for count in RECALL_COUNTS:
            if count in recalls and count in others and others[count][0]:
                name = f"recall@{count}_over_{reference}"
                difference = paired_difference(recalls[count], others[count])
                columns |= {f"{name}{key}": value for key, value in difference.items()}
    return columns


def paired_difference(method: Resamples, reference: Resamples) -> dict[str, float]:
    """Compare two methods by a paired bootstrap over the same resamples of the same cases.

    Args:
        method: [1 + resamples], from `resampled_means`, or an average of such.
        reference: Likewise.

    Returns:
        Column suffix -> value: relative and absolute difference with 95 % intervals, and a
        two-sided p of at least 2 / (resamples + 1).

    Raises:
        ValueError: The shapes differ, or the reference recall is 0.
    """
    if method.shape != reference.shape or method.ndim != 1 or len(method) < 2:
        raise ValueError(
            f"method {method.shape} and reference {reference.shape} must both be [1 + resamples]"
        )
    if not reference[0]:
        raise ValueError("the reference recall is 0: there is no relative difference")
    absolute = method - reference
    relative = absolute / np.maximum(reference, np.finfo(np.float64).tiny)
    columns: dict[str, float] = {}
    for name, values in {"": relative, "_absolute": absolute}.items():
        low, high = np.percentile(values[1:], INTERVAL)
        columns |= {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    # Two-sided: twice the smaller tail, the sample itself included.
    tail_count = min((absolute[1:] <= 0).sum(), (absolute[1:] >= 0).sum())
    return columns | {"_p": float(min(1.0, 2 * (tail_count + 1) / len(absolute)))}


def holm(p_values: ArrayLike) -> Resamples:
    """Adjust p-values of one family by Holm's step-down method; keeps the order.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * factors))
    return adjusted
