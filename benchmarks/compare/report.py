"""The report of a study: methods side by side, dataset by dataset, as one HTML file.

Every number is read from `table.parquet`; nothing is loaded from anywhere.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.compare.analysis import FIXED_LIST, at_budget
from benchmarks.compare.figures import bars_figure, budgets_figure
from benchmarks.compare.tables import column, formatted, with_spread
from index.errors import ConfigError
from trainer.report.page import render_page, validate_place, write_page

TEMPLATE = Path(__file__).with_name("report.html.j2")
TABLE = "table.parquet"
NEEDED = ("dataset", "method", "kind", "budget", "seeds")
RECALLS = {"recall@50": "recall@50", "recall@200": "recall@200"}
NEGATIVES = {
    "negative_score": "mean score of negatives",
    "false_negative_share": "false negatives, share",
}
COST = {
    "seconds_per_step": "seconds per step",
    "cpu_seconds_per_step": "CPU seconds per step",
}


def write_report(folder: Path, out: Path) -> Path:
    """Write the report of a folder that `run` made; return where it is.

    Raises ConfigError if it holds no tables, or `out` is no place for a report.
    """
    validate_place(out)
    write_page(render_report(read_lines(folder)), out)
    return out


def read_lines(folder: Path) -> pd.DataFrame:
    """Read the lines that have a finished trial, in the table's order.

    Raises ConfigError if there is no table, or none of a study.
    """
    path, command = folder / TABLE, "`python -m benchmarks.compare run`"
    try:
        lines = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read as a table ({str(error).splitlines()[0]}); make one with "
            f"{command}"
        ) from error
    absent = [name for name in NEEDED if name not in lines]
    if absent:
        raise ConfigError(
            f"{path}: has no column {', '.join(absent)}; expected what {command} writes; "
            "run it again"
        )
    lines = lines[lines.seeds > 0].astype({"budget": float})
    if lines.empty:
        raise ConfigError(f"{path}: holds no finished trial; let {command} go on")
    return lines


def render_report(lines: pd.DataFrame) -> str:
    """Return the page."""
    groups = dict(list(lines.groupby("dataset", sort=False)))
    datasets = [{"name": name, **dataset_section(one)} for name, one in groups.items()]
    return render_page(TEMPLATE, titles=list(groups), datasets=datasets, source=TABLE)


def dataset_section(lines: pd.DataFrame) -> dict[str, Any]:
    """Gather what the page shows of one dataset."""
    budget = compared_budget(lines)
    compared = side_by_side(lines, budget)
    groups = by_budget(lines)
    return {
        "at": "" if budget is None else f", at {budget:,.0f} items encoded a step",
        "recalls": bars(compared, RECALLS),
        "methods": methods_frame(compared),
        "budgets": budgets_figure(groups, RECALLS) if groups else None,
        "negatives": bars(compared, NEGATIVES),
        "virtual": list(compared[column(compared, "health_of") == "encoded"].method),
        "cost": bars(compared, COST),
    }


def compared_budget(lines: pd.DataFrame) -> float | None:
    """Return the budget that methods are compared at; None where none has one to set.

    It is the one of the lines that are compared with the fixed list; where there is none yet,
    the one at which most methods stand, the larger of equals.
    """
    is_compared = column(lines, f"recall@50_over_{FIXED_LIST}").notna()
    counts = lines[is_compared].budget.value_counts()
    if counts.empty:
        counts = lines.budget.value_counts()
    return float(counts[counts == counts.max()].index.max()) if len(counts) else None


def side_by_side(lines: pd.DataFrame, budget: float | None) -> pd.DataFrame:
    """Return the lines at one budget, or without any; lowest recall@50 first."""
    return at_budget(lines, budget).sort_values("recall@50", kind="stable", na_position="first")


def by_budget(lines: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the methods that were run at several budgets, each from least to most."""
    groups = lines[lines.budget.notna()].groupby("method", sort=False)
    return {method: one.sort_values("budget") for method, one in groups if len(one) > 1}


def bars(lines: pd.DataFrame, titles: Mapping[str, str]) -> dict[str, Any]:
    """Draw the figures that are known; name the others."""
    known = {one: title for one, title in titles.items() if column(lines, one).notna().any()}
    absent = [title for one, title in titles.items() if one not in known]
    return {"figure": bars_figure(lines, known) if known else None, "absent": absent}


def methods_frame(lines: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the methods that are drawn, the best first."""
    columns = {
        "method": lines.method,
        "kind": lines.kind,
        "budget": formatted(lines.budget, "{:,.0f}"),
        "seeds": formatted(lines.seeds, "{:.0f}"),
        "temperature": formatted(column(lines, "temperature")),
        **{name: with_spread(lines, name) for name in RECALLS},
    }
    return pd.DataFrame(columns).iloc[::-1]
