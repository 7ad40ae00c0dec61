"""Two-dimensional map of the item vectors: nearby items are similar to the model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from trainer.report.figures import (
    OTHER,
    PALETTE,
    apply_layout,
    cluster_colour,
    escape_text,
    sort_by_frequency,
)

MAX_ITEMS = 1_500  # t-SNE, most of the time of a report, takes about three seconds
MIN_TSNE_ITEMS = 50  # below, t-SNE has no neighbourhoods to preserve: PCA is used
PERPLEXITY = 30
ANGLE = 0.8  # of Barnes-Hut: a third faster than the default 0.5, the same neighbourhoods
MAX_LABELS = len(PALETTE)

Points = NDArray[np.float32]


@dataclass(frozen=True)
class ItemMap:
    """Two-dimensional projection of a sample of the items.

    Attributes:
        rows: [n], item rows, ascending.
        coordinates: [n, 2].
        method: display name, "t-SNE" or "PCA".
    """

    rows: NDArray[np.int64]
    coordinates: Points
    method: str


def project_items(vectors: Points, seed: int, max_items: int = MAX_ITEMS) -> ItemMap:
    """Project at most `max_items` sampled items into the plane, preserving neighbourhoods.

    Args:
        vectors: [num_items, dim], unit norm.
        seed: of the sample and the projection.
        max_items: size of the sample.
    """
    rng = np.random.default_rng(seed)
    count = min(max_items, len(vectors))
    rows = np.sort(rng.choice(len(vectors), count, replace=False)).astype(np.int64)
    sample = np.ascontiguousarray(vectors[rows])
    if count < MIN_TSNE_ITEMS:
        return ItemMap(rows, _project_pca(sample, seed), "PCA")
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed, max_iter=500, angle=ANGLE)
    return ItemMap(rows, tsne.fit_transform(sample).astype(np.float32), "t-SNE")


def _project_pca(vectors: Points, seed: int) -> Points:
    """Return the first two principal components; zeros for missing ones."""
    coordinates = np.zeros((len(vectors), 2), dtype=np.float32)
    num_components = min(2, *vectors.shape)
    if np.ptp(vectors, axis=0).any():
        pca = PCA(num_components, random_state=seed)
        coordinates[:, :num_components] = pca.fit_transform(vectors)
    return coordinates


def map_figure(
    item_map: ItemMap,
    titles: Sequence[str],
    clusters: Sequence[int] | None,
    labels: Sequence[str | None] | None,
    cluster_names: Sequence[str] = (),
) -> go.Figure:
    """Plot the items, coloured by cluster and by category where these exist.

    Args:
        item_map: of n items.
        titles: [n].
        clusters: [n], level-1 codes.
        labels: [n], categories.
        cluster_names: by level-1 code, if known.
    """
    names = [
        f"cluster {code} {cluster_names[code] if cluster_names else ''}" for code in clusters or ()
    ]
    texts = _hover_texts(titles, names if clusters is not None else None, labels)
    panels: dict[str, list[go.Scatter]] = {}
    if clusters is not None:
        colours = [cluster_colour(cluster) for cluster in clusters]
        panels["by level-1 cluster"] = [_scatter(item_map, texts, None, "", colours)]
    if labels is not None:
        panels["by category"] = _category_traces(item_map, texts, labels)
    panels = panels or {"items": [_scatter(item_map, texts, None, "", PALETTE[0])]}
    names = list(panels)
    figure = make_subplots(1, len(names), subplot_titles=names, horizontal_spacing=0.03)
    for column, traces in enumerate(panels.values(), 1):
        figure.add_traces(traces, rows=1, cols=column)
    return _hide_axes(figure)


def _hover_texts(
    titles: Sequence[str], clusters: Sequence[str] | None, labels: Sequence[str | None] | None
) -> list[str]:
    """Render title, category and cluster of each item."""
    texts = [escape_text(title) for title in titles]
    if labels is not None:
        texts = [
            f"{text}<br>{escape_text(label or 'no category')}"
            for text, label in zip(texts, labels, strict=True)
        ]
    if clusters is not None:
        texts = [
            f"{text}<br>{escape_text(name)}" for text, name in zip(texts, clusters, strict=True)
        ]
    return texts


def _category_traces(
    item_map: ItemMap, texts: list[str], labels: Sequence[str | None]
) -> list[go.Scatter]:
    """Build a trace for each of the largest categories, and one below them for all others."""
    largest = sort_by_frequency(labels)[:MAX_LABELS]
    values = np.array([label if label in largest else "" for label in labels], dtype=object)
    colours = dict(zip(largest, PALETTE, strict=False))
    traces = []
    if (others := np.flatnonzero(values == "")).size:
        traces.append(_scatter(item_map, texts, others, "all others", OTHER))
    for label in largest:
        positions = np.flatnonzero(values == label)
        traces.append(_scatter(item_map, texts, positions, escape_text(label), colours[label]))
    return traces


def _scatter(
    item_map: ItemMap,
    texts: list[str],
    positions: NDArray[np.int64] | None,
    name: str,
    colour: str | list[str],
) -> go.Scatter:
    """Build a trace of the items at some positions of the map, by default all."""
    positions = np.arange(len(item_map.rows)) if positions is None else positions
    return go.Scatter(
        x=[round(float(x), 3) for x in item_map.coordinates[positions, 0]],
        y=[round(float(y), 3) for y in item_map.coordinates[positions, 1]],
        text=[texts[position] for position in positions],
        mode="markers",
        name=name,
        showlegend=bool(name),
        marker={"size": 5, "color": colour, "opacity": 0.8},
        hovertemplate="%{text}<extra></extra>",
    )


def _hide_axes(figure: go.Figure) -> go.Figure:
    """Hide the axes, which have no unit, and link the zoom of the panels."""
    apply_layout(figure, 640)
    figure.update_layout(
        legend={"y": -0.02, "yanchor": "top", "itemsizing": "constant"},
        margin={"l": 10, "r": 45, "t": 40, "b": 10},
        hovermode="closest",
    )
    hidden = dict.fromkeys(("showticklabels", "showgrid", "zeroline"), False)
    frame = {"showline": True, "mirror": True, "linecolor": "#d9e0e7"}
    figure.update_xaxes(matches="x", **hidden, **frame)
    return figure.update_yaxes(matches="y", **hidden, **frame)
