"""Drawings of one run: numbers in, plotly figures out. Knows neither files nor pages."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trainer.metrics import COUNTS

COLOURS = {"model": "#1f5fbf", "popularity": "#9aa5b1", "ease": "#e0802a"}
NAMES = {"model": "this model", "popularity": "popularity", "ease": "EASE"}
PALETTE = (
    "#1f5fbf", "#e0802a", "#2f9e5b", "#c0392b", "#8457b8", "#8a5a44", "#d667a8", "#b5a516",
    "#17a2b8", "#5b6b7a", "#8fb4e8", "#7ccf6a",
)  # fmt: skip
OTHER = "#d3dae1"
LONGEST = 80  # characters of a text on a figure
GOLDEN_ANGLE = 137.508  # degrees: hues of following numbers lie far apart
Found = Mapping[str, Any]


def plain(text: str) -> str:
    """Keep a text from data from being read as markup by plotly; cut it where it is long."""
    cut = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return escape(" ".join(cut.split()), quote=False)


def framed(figure: go.Figure, height: int) -> go.Figure:
    """Give a figure the look that all share; height in pixels."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 70, "r": 30, "t": 50, "b": 60},
        font={
            "family": "system-ui, Segoe UI, Arial, sans-serif",
            "size": 13,
            "color": "#1f2933",
        },
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.07, "x": 0},
        modebar={"orientation": "v"},
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


def curve_figure(curve: Sequence[Found], best_epoch: int) -> go.Figure:
    """Draw loss and validation recall per epoch, the best epoch (from 1) marked."""
    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    epochs = list(range(1, len(curve) + 1))
    for place, (name, title) in enumerate(
        {"loss": "training loss", "recall@50": "validation recall@50"}.items(), 1
    ):
        values = [float(epoch[name]) for epoch in curve]
        line = go.Scatter(
            x=epochs, y=values, name=title, mode="lines+markers", line={"color": PALETTE[0]},
            hovertemplate="epoch %{x}: %{y:.4f}<extra></extra>",
        )  # fmt: skip
        star = go.Scatter(
            x=[best_epoch], y=[values[best_epoch - 1]], mode="markers", name="best epoch",
            marker={"symbol": "star", "size": 16, "color": PALETTE[1]},
            hovertemplate="best epoch %{x}: %{y:.4f}<extra></extra>", showlegend=place == 1,
        )  # fmt: skip
        line.showlegend = False
        figure.add_traces([line, star], rows=1, cols=place)
        figure.update_yaxes(title=title, col=place)
    step = max(1, -(-len(epochs) // 12))
    figure.update_xaxes(title="epoch", dtick=step, tick0=1, range=[0.7, len(epochs) + 0.3])
    return framed(figure, 360)


def methods_figure(measures: Mapping[str, Found]) -> go.Figure:
    """Draw recall and NDCG at 20, 50, 200 of the model beside its references."""
    figure = make_subplots(1, 2, horizontal_spacing=0.1)
    for place, kind in enumerate(("recall", "ndcg"), 1):
        for method, found in measures.items():
            values = [float(found[f"{kind}@{count}"]) for count in COUNTS]
            bar = _bars([f"@{count}" for count in COUNTS], values, method)
            bar.showlegend = place == 1
            figure.add_trace(bar, row=1, col=place)
        figure.update_yaxes(title="NDCG" if kind == "ndcg" else kind, rangemode="tozero", col=place)
    figure.update_xaxes(title="candidates asked for")
    figure.update_layout(bargap=0.22, bargroupgap=0.06)
    return framed(figure, 400)


def buckets_figure(buckets: Mapping[str, Mapping[str, Found]], names: Sequence[str]) -> go.Figure:
    """Draw recall@50 by popularity of the item asked for; no bar below 200 cases.

    buckets  method -> bucket -> "targets" and, from 200 on, "recall@50"
    names    buckets, in order
    """
    counts = [int(buckets["model"][name]["targets"]) for name in names]
    labels = [f"{name}<br>test items: {count:,}" for name, count in zip(names, counts, strict=True)]
    figure = go.Figure()
    for method, found in buckets.items():
        figure.add_trace(_bars(labels, [found[name].get("recall@50") for name in names], method))
    for label, name in zip(labels, names, strict=True):
        if "recall@50" not in buckets["model"][name]:
            figure.add_annotation(
                x=label, y=0, yanchor="bottom", text="below 200:<br>not shown", showarrow=False
            )
    figure.update_yaxes(title="recall@50", rangemode="tozero")
    figure.update_layout(bargap=0.25, bargroupgap=0.06)
    return framed(figure, 400)


def _bars(labels: list[str], values: Sequence[float | None], method: str) -> go.Bar:
    return go.Bar(
        x=labels,
        y=values,
        name=NAMES[method],
        marker_color=COLOURS[method],
        text=["" if one is None else f"{one:.3f}" for one in values],
        textposition="outside",
        textangle=0,
        cliponaxis=False,
        hovertemplate=f"{NAMES[method]}, %{{x}}: %{{y:.4f}}<extra></extra>",
    )


def by_size(labels: Sequence[str | None]) -> list[str]:
    """Return the distinct labels, the most frequent first; equals by name."""
    counts = Counter(one for one in labels if one is not None)
    return sorted(counts, key=lambda one: (-counts[one], one))


def cluster_colour(cluster: int) -> str:
    """Return a colour of its own for a cluster's number, as far as eyes can tell."""
    hue = cluster * GOLDEN_ANGLE % 360
    return f"hsl({hue:.0f}, {(70, 55, 85)[cluster % 3]}%, {(42, 60, 34)[cluster // 3 % 3]}%)"


def sizes_figure(sizes: Sequence[int], commonest: Sequence[str]) -> go.Figure:
    """Draw the level-1 clusters' sizes, largest first.

    sizes      [clusters]  items, by cluster number
    commonest  [clusters]  what to tell of each on hover
    """
    order = sorted(range(len(sizes)), key=lambda one: (-sizes[one], one))
    figure = go.Figure(
        go.Bar(
            x=list(range(1, len(order) + 1)),
            y=[int(sizes[one]) for one in order],
            marker={"color": [cluster_colour(one) for one in order], "line": {"width": 0}},
            customdata=[[one, plain(commonest[one])] for one in order],
            hovertemplate="cluster %{customdata[0]}: %{y:,} items<br>%{customdata[1]}"
            "<extra></extra>",
        )
    )
    mean = sum(sizes) / len(sizes)
    figure.add_hline(
        y=mean, line={"dash": "dash", "color": "#52606d"}, annotation_text=f"mean {mean:,.0f}"
    )
    figure.update_xaxes(title="level-1 clusters, largest first")
    figure.update_yaxes(title="items")
    framed(figure, 330)
    return figure.update_layout(bargap=0.1, showlegend=False, margin={"t": 20})
