"""The report of a study: methods side by side, dataset by dataset, as one HTML file.

Every number is read from `table.parquet`; nothing is loaded from anywhere.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.compare.analysis import FIXED_LIST, SPREAD, at_budget
from benchmarks.compare.tables import column, formatted, with_spread
from index.errors import ConfigError
from trainer.report.figures import PALETTE, apply_layout, escape_text
from trainer.report.page import render_page, validate_output_path, write_page

TEMPLATE = Path(__file__).with_name("report.html.j2")
TABLE = "table.parquet"
NEEDED = ("dataset", "method", "kind", "budget", "seeds")
RECALLS = {"recall@50": "recall@50", "recall@200": "recall@200"}
NEGATIVES = {
    "negative_score": "mean score of negatives",
    "false_negative_share": "false negatives, share",
}
COST = {"seconds_per_step": "seconds per step", "cpu_seconds_per_step": "CPU seconds per step"}
KIND_COLOURS = {
    "esans": "#1f5fbf",
    "ablation": "#8fb4e8",
    "fixed list": "#7b8794",
    "baseline": "#bcc5ce",
}
FURTHER_KIND = "#e0802a"
BAR_PX, REST_PX = 30, 150
LINE_COLOURS = PALETTE[1:]  # the first is kept for ESANS
DASHES = ("solid", "dash", "dot")


def write_report(folder: Path, out: Path) -> Path:
    """Write the report of a folder that `run` made; return where it is.

    Raises ConfigError if it holds no tables, or `out` is no place for a report.
    """
    validate_output_path(out)
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


def bars_figure(lines: pd.DataFrame, titles: Mapping[str, str]) -> go.Figure:
    """Draw methods as bars with error bars, a panel per figure.

    lines   in order from below
    titles  name of a figure -> title of its axis
    """
    figure = make_subplots(1, len(titles), shared_yaxes=True, horizontal_spacing=0.06)
    for place, (name, title) in enumerate(titles.items(), 1):
        for kind in lines.kind[::-1].unique():
            bar = _bars_of_kind(lines[lines.kind == kind], name, place == 1)
            figure.add_trace(bar, row=1, col=place)
        figure.update_xaxes(title=title, rangemode="tozero", nticks=6, col=place)
    figure.update_yaxes(categoryorder="array", categoryarray=[*map(escape_text, lines.method)])
    figure.update_layout(barmode="overlay", bargap=0.3)
    apply_layout(figure, REST_PX + BAR_PX * len(lines))
    legend = {"yref": "container", "y": 1, "yanchor": "top"}  # however tall the plot is
    return figure.update_layout(legend=legend, margin={"t": 70})


def _bars_of_kind(lines: pd.DataFrame, name: str, has_legend: bool) -> go.Bar:
    kind = lines.kind.iloc[0]
    spread = formatted(column(lines, name + SPREAD), " ± {:.4f}").replace("-", "")
    return go.Bar(
        x=list(column(lines, name)),
        y=[*map(escape_text, lines.method)],
        name=escape_text(kind),
        legendgroup=kind,
        showlegend=has_legend,
        orientation="h",
        marker_color=KIND_COLOURS.get(kind, FURTHER_KIND),
        error_x={"color": "#1f2933", **_error_bars(lines, name)},
        customdata=list(zip(spread, lines.seeds.astype(int), strict=True)),
        hovertemplate="%{y}: %{x:.4f}%{customdata[0]}, seeds: %{customdata[1]}<extra></extra>",
    )


def _error_bars(lines: pd.DataFrame, name: str) -> dict[str, Any]:
    """Return error bars of one standard deviation; none where no line has one."""
    spread = column(lines, name + SPREAD)
    is_seen = bool(spread.notna().any())
    look = {"type": "data", "thickness": 1.4, "width": 4}
    return {"array": list(spread), "visible": is_seen, **look}


def budgets_figure(groups: Mapping[str, pd.DataFrame], titles: Mapping[str, str]) -> go.Figure:
    """Draw figures over the budget, a line per method, a panel per figure.

    groups  method -> its lines, from the least budget to the most
    titles  name of a figure -> title of its axis
    """
    figure = make_subplots(1, len(titles), horizontal_spacing=0.12)
    for place, (name, title) in enumerate(titles.items(), 1):
        for order, lines in enumerate(groups.values()):
            trace = _line_of_method(lines, name, order)
            trace.showlegend = place == 1
            figure.add_trace(trace, row=1, col=place)
        figure.update_yaxes(title=title, col=place)
    budgets = sorted({budget for lines in groups.values() for budget in lines.budget})
    figure.update_xaxes(
        title="items encoded a step",
        type="log",
        tickvals=budgets,
        ticktext=[f"{budget:,.0f}" for budget in budgets],
    )
    apply_layout(figure, 440)
    beside = {"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top"}
    return figure.update_layout(legend=beside, modebar={"orientation": "h"})


def _line_of_method(lines: pd.DataFrame, name: str, order: int) -> go.Scatter:
    method = lines.method.iloc[0]
    is_ours = lines.kind.iloc[0] == "esans"
    colour = KIND_COLOURS["esans"] if is_ours else LINE_COLOURS[order % len(LINE_COLOURS)]
    dash = DASHES[order // len(LINE_COLOURS) % len(DASHES)]
    return go.Scatter(
        x=list(lines.budget),
        y=list(column(lines, name)),
        name=escape_text(method),
        legendgroup=method,
        mode="lines+markers",
        line={"color": colour, "width": 4 if is_ours else 2, "dash": dash},
        error_y=_error_bars(lines, name),
        hovertemplate=f"{escape_text(method)}, %{{x:,}} encoded: %{{y:.4f}}<extra></extra>",
    )
