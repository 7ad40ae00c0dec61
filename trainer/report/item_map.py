"""Item vectors in two dimensions, to be looked at: which items the model holds for alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from trainer.report.figures import OTHER, PALETTE, by_size, cluster_colour, framed, plain

MAX_ITEMS_SHOWN = 4_000  # t-SNE takes some ten seconds for as many
FEWEST_ITEMS = 50  # below, t-SNE has no neighbourhoods to keep: the two main axes serve
PERPLEXITY = 30
SHOWN_LABELS = len(PALETTE)

Points = NDArray[np.float32]


@dataclass(frozen=True)
class ItemMap:
    """A sample of the items, laid out in the plane.

    rows    [shown]     item rows, ascending
    places  [shown, 2]
    how     the method's name, for a person
    """

    rows: NDArray[np.int64]
    places: Points
    how: str


def lay_out(vectors: Points, seed: int, most_count: int = MAX_ITEMS_SHOWN) -> ItemMap:
    """Lay at most so many items out so that neighbours stay neighbours.

    vectors  [items, width]  unit rows
    """
    rng = np.random.default_rng(seed)
    count = min(most_count, len(vectors))
    rows = np.sort(rng.choice(len(vectors), count, replace=False)).astype(np.int64)
    chosen = np.ascontiguousarray(vectors[rows])
    if count < FEWEST_ITEMS:
        return ItemMap(rows, _main_axes(chosen, seed), "PCA")
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed, max_iter=500)
    return ItemMap(rows, tsne.fit_transform(chosen).astype(np.float32), "t-SNE")


def _main_axes(vectors: Points, seed: int) -> Points:
    """Return the two directions of most variance; zeros for those that are not there."""
    places = np.zeros((len(vectors), 2), dtype=np.float32)
    width = min(2, *vectors.shape)
    if np.ptp(vectors, axis=0).any():
        places[:, :width] = PCA(width, random_state=seed).fit_transform(vectors)
    return places


def map_figure(
    drawn: ItemMap,
    titles: Sequence[str],
    clusters: Sequence[int] | None,
    labels: Sequence[str | None] | None,
) -> go.Figure:
    """Draw the items, coloured by cluster and by category, as far as each is known.

    titles, clusters, labels  [shown]
    """
    texts = _texts(titles, clusters, labels)
    panels: dict[str, list[go.Scatter]] = {}
    if clusters is not None:
        colours = [cluster_colour(one) for one in clusters]
        panels["by level-1 cluster"] = [_dots(drawn, texts, None, "", colours)]
    if labels is not None:
        panels["by category"] = _labelled(drawn, texts, labels)
    panels = panels or {"items": [_dots(drawn, texts, None, "", PALETTE[0])]}
    names = list(panels)
    figure = make_subplots(1, len(names), subplot_titles=names, horizontal_spacing=0.03)
    for place, traces in enumerate(panels.values(), 1):
        figure.add_traces(traces, rows=1, cols=place)
    return _without_axes(figure)


def _texts(
    titles: Sequence[str],
    clusters: Sequence[int] | None,
    labels: Sequence[str | None] | None,
) -> list[str]:
    """Say on hover what is known of each item."""
    texts = [plain(one) for one in titles]
    if labels is not None:
        texts = [
            f"{text}<br>{plain(label or 'no category')}"
            for text, label in zip(texts, labels, strict=True)
        ]
    if clusters is not None:
        texts = [f"{text}<br>cluster {one}" for text, one in zip(texts, clusters, strict=True)]
    return texts


def _labelled(drawn: ItemMap, texts: list[str], labels: Sequence[str | None]) -> list[go.Scatter]:
    """Make a trace of each of the largest categories, and one of all others below them."""
    largest = by_size(labels)[:SHOWN_LABELS]
    values = np.array([label if label in largest else "" for label in labels], dtype=object)
    colours = dict(zip(largest, PALETTE, strict=False))
    traces = []
    if (others := np.flatnonzero(values == "")).size:
        traces.append(_dots(drawn, texts, others, "all others", OTHER))
    traces += [
        _dots(drawn, texts, np.flatnonzero(values == one), plain(one), colours[one])
        for one in largest
    ]
    return traces


def _dots(
    drawn: ItemMap,
    texts: list[str],
    chosen: NDArray[np.int64] | None,
    name: str,
    colour: str | list[str],
) -> go.Scatter:
    places = np.arange(len(drawn.rows)) if chosen is None else chosen
    return go.Scatter(
        x=[round(float(one), 3) for one in drawn.places[places, 0]],
        y=[round(float(one), 3) for one in drawn.places[places, 1]],
        text=[texts[place] for place in places],
        mode="markers",
        name=name,
        showlegend=bool(name),
        marker={"size": 5, "color": colour, "opacity": 0.8},
        hovertemplate="%{text}<extra></extra>",
    )


def _without_axes(figure: go.Figure) -> go.Figure:
    """Hide the axes, which have no unit, and let both panels zoom as one."""
    framed(figure, 640)
    figure.update_layout(
        legend={"y": -0.02, "yanchor": "top", "itemsizing": "constant"},
        margin={"l": 10, "r": 45, "t": 40, "b": 10},
        hovermode="closest",
    )
    hidden = dict.fromkeys(("showticklabels", "showgrid", "zeroline"), False)
    frame = {"showline": True, "mirror": True, "linecolor": "#d9e0e7"}
    figure.update_xaxes(matches="x", **hidden, **frame)
    return figure.update_yaxes(matches="y", **hidden, **frame)
