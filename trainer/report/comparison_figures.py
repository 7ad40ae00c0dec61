"""Drawings of a comparison: lines of its table in, plotly figures out."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trainer.report.comparison_table import Line, number, spread
from trainer.report.figures import PALETTE, framed, plain

KIND_COLOURS = {
    "esans": "#1f5fbf",
    "ablation": "#8fb4e8",
    "fixed list": "#7b8794",
    "baseline": "#bcc5ce",
}
FURTHER_KIND = "#e0802a"
BAR_PX, REST_PX = 30, 150
LEGEND_BESIDE = {"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top"}
LINE_COLOURS = PALETTE[1:]  # the first is kept for ESANS
DASHES = ("solid", "dash", "dot")


def bars_figure(lines: Sequence[Line], titles: Mapping[str, str]) -> go.Figure:
    """Draw methods as bars with error bars, a panel per figure.

    lines   in order from below
    titles  name of a figure -> title of its axis
    """
    figure = make_subplots(1, len(titles), shared_yaxes=True, horizontal_spacing=0.06)
    kinds = list(dict.fromkeys(line["kind"] for line in reversed(lines)))
    for place, (name, title) in enumerate(titles.items(), 1):
        for kind in kinds:
            bar = _bars_of_kind([one for one in lines if one["kind"] == kind], name, kind)
            bar.showlegend = place == 1
            figure.add_trace(bar, row=1, col=place)
        figure.update_xaxes(title=title, rangemode="tozero", nticks=6, col=place)
    figure.update_yaxes(
        categoryorder="array", categoryarray=[plain(line["method"]) for line in lines]
    )
    figure.update_layout(barmode="overlay", bargap=0.3)
    return _legend_above(framed(figure, REST_PX + BAR_PX * len(lines)))


def _bars_of_kind(lines: Sequence[Line], name: str, kind: str) -> go.Bar:
    return go.Bar(
        x=[number(line, name) for line in lines],
        y=[plain(line["method"]) for line in lines],
        name=plain(kind),
        legendgroup=kind,
        orientation="h",
        marker_color=KIND_COLOURS.get(kind, FURTHER_KIND),
        error_x={"color": "#1f2933", **_error_bars(lines, name)},
        customdata=[[_deviation(line, name), int(line["seeds"])] for line in lines],
        hovertemplate="%{y}: %{x:.4f}%{customdata[0]}, seeds: %{customdata[1]}<extra></extra>",
    )


def _error_bars(lines: Sequence[Line], name: str) -> dict[str, Any]:
    """Return error bars of one standard deviation; none where no line has one."""
    deviations = [spread(line, name) for line in lines]
    is_known = any(one is not None for one in deviations)
    return {
        "type": "data",
        "array": deviations,
        "visible": is_known,
        "thickness": 1.4,
        "width": 4,
    }


def _deviation(line: Line, name: str) -> str:
    deviation = spread(line, name)
    return "" if deviation is None else f" ± {deviation:.4f}"


def budgets_figure(
    groups: Mapping[str, Sequence[Line]], titles: Mapping[str, str]
) -> go.Figure:
    """Draw figures over the budget, a line per method, a panel per figure.

    groups  method -> its lines, from the least budget to the most
    titles  name of a figure -> title of its axis
    """
    figure = make_subplots(1, len(titles), horizontal_spacing=0.12)
    for place, (name, title) in enumerate(titles.items(), 1):
        for order, (method, lines) in enumerate(groups.items()):
            trace = _line_of_method(method, lines, name, order)
            trace.showlegend = place == 1
            figure.add_trace(trace, row=1, col=place)
        figure.update_yaxes(title=title, col=place)
    budgets = sorted({float(line["budget"]) for lines in groups.values() for line in lines})
    figure.update_xaxes(
        title="items encoded a step",
        type="log",
        tickvals=budgets,
        ticktext=[f"{budget:,.0f}" for budget in budgets],
    )
    framed(figure, 440)
    return figure.update_layout(legend=LEGEND_BESIDE, modebar={"orientation": "h"})


def _line_of_method(method: str, lines: Sequence[Line], name: str, order: int) -> go.Scatter:
    is_ours = lines[0]["kind"] == "esans"
    colour = KIND_COLOURS["esans"] if is_ours else LINE_COLOURS[order % len(LINE_COLOURS)]
    dash = DASHES[order // len(LINE_COLOURS) % len(DASHES)]
    return go.Scatter(
        x=[float(line["budget"]) for line in lines],
        y=[number(line, name) for line in lines],
        name=plain(method),
        legendgroup=method,
        mode="lines+markers",
        line={"color": colour, "width": 4 if is_ours else 2, "dash": dash},
        error_y=_error_bars(lines, name),
        hovertemplate=f"{plain(method)}, %{{x:,}} encoded: %{{y:.4f}}<extra></extra>",
    )


def _legend_above(figure: go.Figure) -> go.Figure:
    """Put the legend a fixed way above the plot, however tall that is."""
    figure.update_layout(
        legend={"yref": "container", "y": 1, "yanchor": "top"}, margin={"t": 70}
    )
    return figure
