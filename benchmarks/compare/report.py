"""HTML report of a study, rendered from `table.parquet` alone; it needs no network."""

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
REQUIRED_COLUMNS = ("dataset", "method", "kind", "budget", "seeds")
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
OTHER_KIND_COLOUR = "#e0802a"
BAR_PX, MARGIN_PX = 30, 150
LINE_COLOURS = PALETTE[1:]  # the first is reserved for ESANS
DASHES = ("solid", "dash", "dot")


def write_report(folder: Path, out: Path) -> Path:
    """Write the report of a study's output folder; return its path.

    Raises:
        ConfigError: The folder has no table, or `out` cannot be written.
    """
    validate_output_path(out)
    write_page(render_report(read_lines(folder)), out)
    return out


def read_lines(folder: Path) -> pd.DataFrame:
    """Read the lines with a finished trial, in the table's order.

    Raises:
        ConfigError: There is no table, or it is not a study's.
    """
    path, command = folder / TABLE, "`python -m benchmarks.compare run`"
    try:
        lines = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read as a table ({str(error).splitlines()[0]}); run {command}"
        ) from error
    missing = [name for name in REQUIRED_COLUMNS if name not in lines]
    if missing:
        raise ConfigError(
            f"{path}: has no column {', '.join(missing)}; expected a table of {command}; "
            "run it again"
        )
    lines = lines[lines.seeds > 0].astype({"budget": float})
    if lines.empty:
        raise ConfigError(f"{path}: has no finished trial; continue with {command}")
    return lines


def render_report(lines: pd.DataFrame) -> str:
    """Render the HTML page."""
    groups = dict(list(lines.groupby("dataset", sort=False)))
    datasets = [{"name": name, **dataset_section(group)} for name, group in groups.items()]
    return render_page(TEMPLATE, titles=list(groups), datasets=datasets, source=TABLE)


def dataset_section(lines: pd.DataFrame) -> dict[str, Any]:
    """Build the template values of one dataset."""
    budget = compared_budget(lines)
    compared = side_by_side(lines, budget)
    groups = by_budget(lines)
    return {
        "at": "" if budget is None else f", at {budget:,.0f} items encoded per step",
        "recalls": bars(compared, RECALLS),
        "methods": methods_frame(compared),
        "budgets": budgets_figure(groups, RECALLS) if groups else None,
        "negatives": bars(compared, NEGATIVES),
        "virtual": list(compared[column(compared, "health_of") == "encoded"].method),
        "cost": bars(compared, COST),
    }


def compared_budget(lines: pd.DataFrame) -> float | None:
    """Return the comparison budget; None if no method has a budget.

    It is the budget of the lines that are compared with the fixed list, or else the budget of
    most methods, the largest of equals.
    """
    is_compared = column(lines, f"recall@50_over_{FIXED_LIST}").notna()
    counts = lines[is_compared].budget.value_counts()
    if counts.empty:
        counts = lines.budget.value_counts()
    return float(counts[counts == counts.max()].index.max()) if len(counts) else None


def side_by_side(lines: pd.DataFrame, budget: float | None) -> pd.DataFrame:
    """Return the lines at one budget or without a budget; lowest recall@50 first."""
    return at_budget(lines, budget).sort_values("recall@50", kind="stable", na_position="first")


def by_budget(lines: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the lines of methods with several budgets, each in ascending order."""
    groups = lines[lines.budget.notna()].groupby("method", sort=False)
    return {method: group.sort_values("budget") for method, group in groups if len(group) > 1}


def bars(lines: pd.DataFrame, titles: Mapping[str, str]) -> dict[str, Any]:
    """Plot the available metrics; list the others as absent."""
    known = {name: title for name, title in titles.items() if column(lines, name).notna().any()}
    absent = [title for name, title in titles.items() if name not in known]
    return {"figure": bars_figure(lines, known) if known else None, "absent": absent}


def methods_frame(lines: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the plotted methods, the best first."""
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
    """Plot methods as bars with error bars, one panel per metric.

    Args:
        lines: In order from the bottom.
        titles: Metric -> axis title.
    """
    figure = make_subplots(1, len(titles), shared_yaxes=True, horizontal_spacing=0.06)
    for panel, (name, title) in enumerate(titles.items(), 1):
        for kind in lines.kind[::-1].unique():
            bar = _bars_of_kind(lines[lines.kind == kind], name, panel == 1)
            figure.add_trace(bar, row=1, col=panel)
        figure.update_xaxes(title=title, rangemode="tozero", nticks=6, col=panel)
    figure.update_yaxes(categoryorder="array", categoryarray=[*map(escape_text, lines.method)])
    figure.update_layout(barmode="overlay", bargap=0.3)
    apply_layout(figure, MARGIN_PX + BAR_PX * len(lines))
    legend = {"yref": "container", "y": 1, "yanchor": "top"}  # independent of the plot's height
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
        marker_color=KIND_COLOURS.get(kind, OTHER_KIND_COLOUR),
        error_x={"color": "#1f2933", **_error_bars(lines, name)},
        customdata=list(zip(spread, lines.seeds.astype(int), strict=True)),
        hovertemplate="%{y}: %{x:.4f}%{customdata[0]}, seeds: %{customdata[1]}<extra></extra>",
    )


def _error_bars(lines: pd.DataFrame, name: str) -> dict[str, Any]:
    """Return error bars of one standard deviation; hidden if no line has one."""
    spread = column(lines, name + SPREAD)
    is_visible = bool(spread.notna().any())
    style = {"type": "data", "thickness": 1.4, "width": 4}
    return {"array": list(spread), "visible": is_visible, **style}


def budgets_figure(groups: Mapping[str, pd.DataFrame], titles: Mapping[str, str]) -> go.Figure:
    """Plot metrics over the budget, one line per method, one panel per metric.

    Args:
        groups: Method -> its lines, by ascending budget.
        titles: Metric -> axis title.
    """
    figure = make_subplots(1, len(titles), horizontal_spacing=0.12)
    for panel, (name, title) in enumerate(titles.items(), 1):
        for order, lines in enumerate(groups.values()):
            trace = _line_of_method(lines, name, order)
            trace.showlegend = panel == 1
            figure.add_trace(trace, row=1, col=panel)
        figure.update_yaxes(title=title, col=panel)
    budgets = sorted({budget for lines in groups.values() for budget in lines.budget})
    figure.update_xaxes(
        title="items encoded per step",
        type="log",
        tickvals=budgets,
        ticktext=[f"{budget:,.0f}" for budget in budgets],
    )
    apply_layout(figure, 440)
    legend = {"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top"}
    return figure.update_layout(legend=legend, modebar={"orientation": "h"})


def _line_of_method(lines: pd.DataFrame, name: str, order: int) -> go.Scatter:
    method = lines.method.iloc[0]
    is_esans = lines.kind.iloc[0] == "esans"
    colour = KIND_COLOURS["esans"] if is_esans else LINE_COLOURS[order % len(LINE_COLOURS)]
    dash = DASHES[order // len(LINE_COLOURS) % len(DASHES)]
    return go.Scatter(
        x=list(lines.budget),
        y=list(column(lines, name)),
        name=escape_text(method),
        legendgroup=method,
        mode="lines+markers",
        line={"color": colour, "width": 4 if is_esans else 2, "dash": dash},
        error_y=_error_bars(lines, name),
        hovertemplate=f"{escape_text(method)}, %{{x:,}} encoded: %{{y:.4f}}<extra></extra>",
    )
