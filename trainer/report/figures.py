"""Plotly figures of a training run, built from numbers; no I/O and no HTML."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from trainer.metrics import COUNTS

COLOURS = {"model": "#1f5fbf", "popularity": "#9aa5b1", "ease": "#e0802a"}
METHOD_NAMES = {"model": "this model", "popularity": "popularity", "ease": "EASE"}
PALETTE = (
    "#1f5fbf", "#e0802a", "#2f9e5b", "#c0392b", "#8457b8", "#8a5a44", "#d667a8", "#b5a516",
    "#17a2b8", "#5b6b7a", "#8fb4e8", "#7ccf6a",
)  # fmt: skip
OTHER = "#d3dae1"
MAX_TEXT_LENGTH = 80  # characters of a text on a figure
GOLDEN_ANGLE = 137.508  # degrees: consecutive numbers get distant hues
Metrics = Mapping[str, Any]


def escape_text(text: str) -> str:
    """Escape a text from data, which plotly would render as markup, and shorten it."""
    short = text if len(text) <= MAX_TEXT_LENGTH else f"{text[: MAX_TEXT_LENGTH - 1]}…"
    return escape(" ".join(short.split()), quote=False)


def apply_layout(figure: go.Figure, height_px: int) -> go.Figure:
    """Apply the layout that all figures share."""
    figure.update_layout(
        template="plotly_white",
        height=height_px,
        margin={"l": 70, "r": 30, "t": 50, "b": 60},
        font={"family": "system-ui, Segoe UI, Arial, sans-serif", "size": 13, "color": "#1f2933"},
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.07, "x": 0},
        modebar={"orientation": "v"},
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


def curve_figure(curve: Sequence[Metrics], best_epoch: int) -> go.Figure:
    """Plot loss and validation recall per epoch, with a star at the best epoch (from 1)."""
    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    epochs = list(range(1, len(curve) + 1))
    for column, (name, title) in enumerate(
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
            hovertemplate="best epoch %{x}: %{y:.4f}<extra></extra>", showlegend=column == 1,
        )  # fmt: skip
        line.showlegend = False
        figure.add_traces([line, star], rows=1, cols=column)
        figure.update_yaxes(title=title, col=column)
    step = max(1, -(-len(epochs) // 12))
    figure.update_xaxes(title="epoch", dtick=step, tick0=1, range=[0.7, len(epochs) + 0.3])
    return apply_layout(figure, 360)


def hardness_figure(points: Sequence[Metrics]) -> go.Figure:
    """Plot the mean score of positives and negatives by source over the steps of a run."""
    figure = go.Figure()
    sources = dict.fromkeys(name for point in points for name in point if name != "step")
    for number, source in enumerate(sources):
        known = [point for point in points if source in point]
        figure.add_scatter(
            x=[point["step"] for point in known], y=[point[source] for point in known],
            name=source, mode="lines", line={"color": PALETTE[number % len(PALETTE)]},
            hovertemplate=f"step %{{x}}: %{{y:.3f}}<extra>{source}</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="step")
    figure.update_yaxes(title="mean score")
    return apply_layout(figure, 360)


def methods_figure(metrics_by_method: Mapping[str, Metrics]) -> go.Figure:
    """Plot recall and NDCG at 20, 50 and 200 of the model and its baselines."""
    figure = make_subplots(1, 2, horizontal_spacing=0.1)
    for column, kind in enumerate(("recall", "ndcg"), 1):
        for method, metrics in metrics_by_method.items():
            values = [float(metrics[f"{kind}@{count}"]) for count in COUNTS]
            bar = _bars([f"@{count}" for count in COUNTS], values, method)
            bar.showlegend = column == 1
            figure.add_trace(bar, row=1, col=column)
        figure.update_yaxes(
            title="NDCG" if kind == "ndcg" else kind, rangemode="tozero", col=column
        )
    figure.update_xaxes(title="number of candidates")
    figure.update_layout(bargap=0.22, bargroupgap=0.06)
    return apply_layout(figure, 400)


def buckets_figure(buckets: Mapping[str, Mapping[str, Metrics]], names: Sequence[str]) -> go.Figure:
    """Plot recall@50 by popularity bucket of the target; no bar below 200 cases.

    Args:
        buckets: method to bucket to "targets" and, from 200 cases, "recall@50".
        names: of the buckets, in order.
    """
    counts = [int(buckets["model"][name]["targets"]) for name in names]
    labels = [f"{name}<br>test items: {count:,}" for name, count in zip(names, counts, strict=True)]
    figure = go.Figure()
    for method, metrics in buckets.items():
        figure.add_trace(_bars(labels, [metrics[name].get("recall@50") for name in names], method))
    for label, name in zip(labels, names, strict=True):
        if "recall@50" not in buckets["model"][name]:
            figure.add_annotation(
                x=label, y=0, yanchor="bottom", text="below 200:<br>not shown", showarrow=False
            )
    figure.update_yaxes(title="recall@50", rangemode="tozero")
    figure.update_layout(bargap=0.25, bargroupgap=0.06)
    return apply_layout(figure, 400)


def _bars(labels: list[str], values: Sequence[float | None], method: str) -> go.Bar:
    return go.Bar(
        x=labels,
        y=values,
        name=METHOD_NAMES[method],
        marker_color=COLOURS[method],
        text=["" if value is None else f"{value:.3f}" for value in values],
        textposition="outside",
        textangle=0,
        cliponaxis=False,
        hovertemplate=f"{METHOD_NAMES[method]}, %{{x}}: %{{y:.4f}}<extra></extra>",
    )


def sort_by_frequency(labels: Sequence[str | None]) -> list[str]:
    """Return the distinct labels by descending frequency, ties by name."""
    counts = Counter(label for label in labels if label is not None)
    return sorted(counts, key=lambda label: (-counts[label], label))


def cluster_colour(cluster: int) -> str:
    """Return a colour for a cluster, as distinct from the others as possible."""
    hue = cluster * GOLDEN_ANGLE % 360
    return f"hsl({hue:.0f}, {(70, 55, 85)[cluster % 3]}%, {(42, 60, 34)[cluster // 3 % 3]}%)"


def sizes_figure(sizes: Sequence[int], descriptions: Sequence[str]) -> go.Figure:
    """Plot the sizes of the level-1 clusters, largest first.

    Args:
        sizes: [clusters], number of items.
        descriptions: [clusters], shown on hover.
    """
    order = sorted(range(len(sizes)), key=lambda cluster: (-sizes[cluster], cluster))
    colours = [cluster_colour(cluster) for cluster in order]
    figure = go.Figure(
        go.Bar(
            x=list(range(1, len(order) + 1)),
            y=[int(sizes[cluster]) for cluster in order],
            marker={"color": colours, "line": {"width": 0}},
            customdata=[[cluster, escape_text(descriptions[cluster])] for cluster in order],
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
    apply_layout(figure, 330)
    return figure.update_layout(bargap=0.1, showlegend=False, margin={"t": 20})
