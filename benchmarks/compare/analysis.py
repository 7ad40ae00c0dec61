"""From finished trials to lines: means over seeds, and differences from what must be beaten.

A line is a dataset, a method and a budget. The references of a line are the mean of the fixed
list, and the best baseline that costs no more.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from benchmarks.compare.schedule import Schedule
from benchmarks.compare.trial import RECALL_COUNTS, Draws, Recalls

FIXED_LIST, BEST = "fixed_list", "best_baseline"
BASELINE_KINDS = ("fixed list", "baseline")
SPREAD = "_spread"
INTERVAL = (2.5, 97.5)  # percentiles of a 95 % interval
COSTS = ["seconds", "cpu_seconds", "seconds_per_step", "cpu_seconds_per_step"]


def finished_trials(schedule: Schedule) -> pd.DataFrame:
    """Tabulate every finished trial, those that temperatures were chosen by too."""
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
    """Make a line of every dataset, method and budget of the study, finished or not.

    Figures are means over the seeds, NAME_spread their standard deviation. `recalls` are the
    averaged draws; empty where those of a trial are not at hand.
    """
    rows = []
    for dataset, name, budget in schedule.lines():
        trials = schedule.trials_of(dataset, name, budget)
        done = [trial for trial in trials if schedule.store.has(trial)]
        line = {
            "dataset": dataset,
            "method": name,
            "kind": schedule.study.methods[name].kind,
            "budget": budget,
            "temperature": schedule.temperature_of(dataset, name),
            "seeds": len(done),
            "seeds_wanted": len(schedule.study.seeds_of(name)),
        }
        figures = average(pd.DataFrame([schedule.store.figures(trial) for trial in done]))
        recalls = mean_recalls(schedule.store.recalls(trial) for trial in done)
        rows.append(line | figures | {"recalls": recalls})
    return pd.DataFrame(rows).astype({"budget": float, "temperature": float})


def average(trials: pd.DataFrame) -> dict[str, Any]:
    """Average the figures of one line's trials; keep a text that all agree on.

    Costs are those of the first: a study may be finished on other machines, and a mean over
    these says nothing.
    """
    if trials.empty:
        return {}
    costs = [name for name in COSTS if name in trials]
    numbers = trials.drop(columns=costs).select_dtypes("number")
    texts = trials.drop(columns=[*costs, *numbers])
    averaged = dict(numbers.mean(skipna=False))
    if len(trials) > 1:
        averaged |= dict(numbers.std(skipna=False).add_suffix(SPREAD))
    agreed = {name: texts[name].nunique(dropna=False) == 1 for name in texts}
    averaged |= {name: texts[name].iloc[0] if agreed[name] else None for name in texts}
    return averaged | dict(trials[costs].iloc[0])


def mean_recalls(runs: Iterable[Recalls | None]) -> Recalls:
    """Average recalls over trials or methods, draw by draw; empty unless all are there."""
    every = list(runs)
    if not every or not all(every):
        return {}
    return {count: np.mean([one[count] for one in every if one], axis=0) for count in RECALL_COUNTS}


def compare(lines: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Compare every line with its references; one row per line.

    budget  at which methods are compared

    For recall at 50 and 200: the relative difference, its interval, the absolute one, p, and
    p by Holm over the datasets that the method was measured on. A missing reference, or
    missing resamples, leave values out.
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
    """Return the lines at one budget, and those that have none to set."""
    return lines[lines.budget.isna() | (lines.budget == budget)]


def fixed_list_of(lines: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Return one dataset's fixed list at the budget compared at; empty unless all is there."""
    fixed = at_budget(lines[lines.kind == "fixed list"], budget)
    return fixed if (fixed.seeds > 0).all() else fixed.iloc[:0]


def best_baseline(lines: pd.DataFrame, limit: float) -> pd.Series | None:
    """Return one dataset's baseline of the highest mean validation recall@50 in the limit.

    limit  items encoded a step, at most; a baseline without a budget encodes none
    """
    is_baseline = lines.kind.isin(BASELINE_KINDS) & (lines.seeds > 0)
    fitting = lines[is_baseline & (lines.budget.fillna(0) <= limit)]
    if fitting.empty:
        return None
    return fitting.loc[fitting["validation_recall@50"].fillna(0).idxmax()]


def name_of(line: pd.Series) -> str:
    """Return a line's method, with its budget where it has one."""
    return line.method if pd.isna(line.budget) else f"{line.method} {line.budget:.0f}"


def _compare(line: pd.Series, lines: pd.DataFrame, budget: int) -> dict[str, Any]:
    """Compare a line with the references of its dataset."""
    has_none = pd.isna(line.budget)
    best = best_baseline(lines, budget if has_none else line.budget)
    columns: dict[str, Any] = {} if best is None else {BEST: name_of(best)}
    references: dict[str, Mapping[int, Any]] = {}
    if best is not None and best.name != line.name:
        references[BEST] = best.recalls
    if has_none or line.budget == budget:
        references[FIXED_LIST] = mean_recalls(fixed_list_of(lines, budget).recalls)
    for reference, recalls in references.items():
        for count in RECALL_COUNTS:
            if count in line.recalls and count in recalls and recalls[count][0]:
                name = f"recall@{count}_over_{reference}"
                found = difference_of(line.recalls[count], recalls[count])
                columns |= {f"{name}{key}": value for key, value in found.items()}
    return columns


def difference_of(ours: Draws, theirs: Draws) -> dict[str, float]:
    """Compare two methods by a paired bootstrap over the same draws of the same cases.

    ours, theirs  [1 + resamples]  from `resampled_means`, or averages of such
    returns       ours less theirs with its 95 % interval, as a part of theirs and absolute, and
                  a two-sided p, never below 2 / (resamples + 1); keyed by the end of a column

    Raises ValueError if the two are not alike, or theirs found nothing.
    """
    if ours.shape != theirs.shape or ours.ndim != 1 or len(ours) < 2:
        raise ValueError(
            f"ours {ours.shape} and theirs {theirs.shape} must be [1 + resamples], alike"
        )
    if not theirs[0]:
        raise ValueError("theirs found nothing at all: no difference can be a part of it")
    absolute = ours - theirs
    relative = absolute / np.maximum(theirs, np.finfo(np.float64).tiny)
    found: dict[str, float] = {}
    for name, values in {"": relative, "_absolute": absolute}.items():
        low, high = np.percentile(values[1:], INTERVAL)
        found |= {name: float(values[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    # Double the smaller share of resamples on a side of 0, the sample itself counted.
    least = min((absolute[1:] <= 0).sum(), (absolute[1:] >= 0).sum())
    return found | {"_p": float(min(1.0, 2 * (least + 1) / len(absolute)))}


def holm(p_values: ArrayLike) -> Draws:
    """Adjust p-values of one family by Holm's step-down method, in the order given.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * factors))
    return adjusted
