"""Drawings of a study: lines of its table in, plotly figures out."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.compare.analysis import SPREAD
from benchmarks.compare.tables import column, formatted
from trainer.report.figures import PALETTE, framed, plain

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
    figure.update_yaxes(categoryorder="array", categoryarray=[*map(plain, lines.method)])
    figure.update_layout(barmode="overlay", bargap=0.3)
    framed(figure, REST_PX + BAR_PX * len(lines))
    legend = {"yref": "container", "y": 1, "yanchor": "top"}  # however tall the plot is
    return figure.update_layout(legend=legend, margin={"t": 70})


def _bars_of_kind(lines: pd.DataFrame, name: str, has_legend: bool) -> go.Bar:
    kind = lines.kind.iloc[0]
    spread = formatted(column(lines, name + SPREAD), " ± {:.4f}").replace("-", "")
    return go.Bar(
        x=list(column(lines, name)),
        y=[*map(plain, lines.method)],
        name=plain(kind),
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
    framed(figure, 440)
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
        name=plain(method),
        legendgroup=method,
        mode="lines+markers",
        line={"color": colour, "width": 4 if is_ours else 2, "dash": dash},
        error_y=_error_bars(lines, name),
        hovertemplate=f"{plain(method)}, %{{x:,}} encoded: %{{y:.4f}}<extra></extra>",
    )
