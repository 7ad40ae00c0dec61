"""The sections of a run's report that show its items: their vectors, and their clusters."""

from collections import Counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index.bundle.reader import Bundle
from index.cluster_map import ClusterMap
from index.clusters.files import joined
from trainer.esans.stats import title_column
from trainer.report.figures import sizes_figure
from trainer.report.item_map import lay_out, map_figure
from trainer.report.page import Section, drawing, missing, paragraph, table


def item_vectors(
    bundle: Bundle, attributes: pa.Table, column: str | None, labels: list[str | None] | None
) -> Section:
    """Draw the item vectors in the plane."""
    drawn = lay_out(bundle.vectors, seed=0)
    titles = [
        str(one) for one in attributes[title_column(attributes)].take(drawn.rows).to_pylist()
    ]
    found = map_of_all(bundle)
    codes = found.codes1[drawn.rows].tolist() if found else None
    chosen = None if labels is None else [labels[row] for row in drawn.rows]
    caption = (
        f"{len(drawn.rows):,} of {len(bundle.vectors):,} items, their {bundle.manifest.width} "
        f"numbers laid out in two by {drawn.how}: items near each other are alike to the "
        "model, distances between far groups mean little. Hover for the title. From "
        "item_vectors.npy and items.parquet."
    )
    told = [drawing(map_figure(drawn, titles, codes, chosen), "map", caption)]
    if column is None:
        told.append(missing("Not coloured by category: no column of the items looks like one."))
    elif codes is None:
        told.insert(0, paragraph(f"Category is the items' column {column!r}."))
    else:
        words = (
            "Left, an item's colour is its level-1 cluster (like colours mean nothing); right, "
            f"its category (column {column!r})."
        )
        told.insert(0, paragraph(words))
    return Section("Item vectors", told)


def clusters(bundle: Bundle, labels: list[str | None] | None) -> Section:
    """Draw the sizes of the clusters that negatives were drawn from."""
    title = "Cluster map"
    found = map_of_all(bundle)
    if found is None:
        return Section(
            title,
            [
                missing(
                    "This run's sampler used no cluster map. To get one, train with an ESANS "
                    'sampler ([training.sampler] name = "esans"), or look at one alone with '
                    "`python -m trainer clusters --data DIR`."
                )
            ],
        )
    sizes = found.layout.cluster_sizes
    cells = np.unique(found.layout.cells, return_counts=True)[1]
    rows = [
        _sizes_row("level-1 clusters", sizes[sizes > 0]),
        _sizes_row("cells (both levels)", cells),
    ]
    alone = f"{(cells == 1).sum() / len(found):.1%} of the items are alone in their cell."
    caption = (
        "Items of each level-1 cluster of the map that negatives were drawn from: a few large "
        "ones beside many tiny ones would be a collapse. From cluster_map.codes1.npy."
    )
    shown = drawing(sizes_figure(sizes.tolist(), _commonest(found.codes1, len(sizes), labels)),
                    "sizes", caption)  # fmt: skip
    head = ("", "used", "fewest items", "median", "most")
    return Section(title, [shown, table(head, rows), paragraph(alone)])


def _sizes_row(name: str, sizes: NDArray[np.int64]) -> list[object]:
    return [name, len(sizes), int(sizes.min()), int(np.median(sizes)), int(sizes.max())]


def _commonest(
    codes: NDArray[np.int32], count: int, labels: list[str | None] | None
) -> list[str]:
    """Say of each cluster which category is the most frequent in it."""
    if labels is None:
        return [""] * count
    counters: list[Counter[str]] = [Counter() for _ in range(count)]
    for code, label in zip(codes.tolist(), labels, strict=True):
        counters[code][label or "no category"] += 1
    return [
        f"{found[0][1] / one.total():.0%} {found[0][0]}"
        if (found := one.most_common(1))
        else ""
        for one in counters
    ]


def map_of_all(bundle: Bundle) -> ClusterMap | None:
    """Return the bundle's map, in the order of its items.

    Those that were added since the training are a cluster of their own.
    """
    found, by_row = bundle.clusters, bundle.items.hashes_by_row()
    if found is None or np.array_equal(found.id_hashes, by_row):
        return found
    return joined(found, by_row)
