"""A cluster map in figures and examples, so that a person sees whether it makes sense.

Collapse (a few codes take all items) shows in the perplexity, nonsense in the tables below it.
"""

import numpy as np
from tabulate import tabulate

from index.cluster_map import ClusterMap
from trainer.data.dataset import Dataset
from trainer.esans.columns import category_column, title_column
from trainer.esans.figures import (
    Codes,
    Level,
    agreement,
    labels_of,
    level_of,
    share_alone,
    togetherness,
)

SHOWN_CLUSTERS, SHOWN_TITLES = 3, 8


def describe(
    found: ClusterMap, data: Dataset, category: str | None, rng: np.random.Generator
) -> str:
    """Describe a map made of this dataset, for a person.

    category  the column to compare with; None guesses one

    Raises ConfigError if there is no such column.
    """
    column = category_column(data.attributes, category)
    codes: dict[str, Codes] = {
        "cluster": found.codes1,
        "level 2": found.codes2,
        "cell": found.layout.cells,
    }
    levels = {name: level_of(one) for name, one in codes.items()}
    alone = share_alone(found.layout.cells)
    lines = [
        f"cluster map {found.version}: {len(found):,} items, made of "
        + ", ".join(f"{name} ({n:,})" for name, n in found.made.get("items_with", {}).items()),
        _sizes_table(levels),
        f"items alone in their cell: {alone:.1%}",
        _agreement_table(codes, data, column),
        _togetherness_table(codes, data, rng),
        *_examples(found, data, rng),
    ]
    return "\n\n".join(lines)


def _sizes_table(levels: dict[str, Level]) -> str:
    rows = [
        [name, one.used, f"{one.perplexity:.1f}", *(f"{size:.0f}" for size in one.quantiles)]
        for name, one in levels.items()
    ]
    head = ["", "used", "perplexity", "fewest items", "25 %", "median", "75 %", "most"]
    return tabulate(rows, head, disable_numparse=True, colalign=("left",) + ("right",) * 7)


def _agreement_table(codes: dict[str, Codes], data: Dataset, column: str | None) -> str:
    if column is None:
        return "no category column found; give one with --category to compare with"
    known, labels = labels_of(data, column)
    rows = []
    for name in ("cluster", "cell"):
        found = agreement(codes[name][known], labels)
        rows.append([name, f"{found.normalised:.3f}", f"{found.adjusted:.3f}"])
    told = f"agreement with {column} ({len(np.unique(labels))} values, {len(known):,} items)"
    return tabulate(rows, [told, "NMI", "adjusted"], disable_numparse=True)


def _togetherness_table(
    codes: dict[str, Codes], data: Dataset, rng: np.random.Generator
) -> str:
    rows = []
    for name in ("cluster", "cell"):
        found = togetherness(codes[name], data, rng)
        chance = found.random_takes or np.nan
        rows.append(
            [
                name,
                f"{found.one_history:.4f}",
                f"{found.held_out:.4f}",
                f"{found.random_takes:.4f}",
                f"{found.random_items:.4f}",
                f"{found.one_history / chance:.1f}",
                f"{found.held_out / chance:.1f}",
            ]
        )
    head = [
        "two items share a",
        "one history",
        "history and held out",
        "random takes",
        "random items",
        "history / takes",
        "held out / takes",
    ]
    return tabulate(rows, head, disable_numparse=True)


def _examples(found: ClusterMap, data: Dataset, rng: np.random.Generator) -> list[str]:
    """Name some items of a few clusters that have the median size or more."""
    name = title_column(data.attributes)
    sizes = found.layout.cluster_sizes
    fit = np.flatnonzero(sizes >= np.median(sizes[sizes > 0]))
    shown = rng.choice(fit, min(SHOWN_CLUSTERS, len(fit)), replace=False)
    told = []
    for cluster in np.sort(shown):
        own = np.flatnonzero(found.codes1 == cluster)
        some = np.sort(rng.choice(own, min(SHOWN_TITLES, len(own)), replace=False))
        some = some[np.argsort(found.codes2[some], kind="stable")]
        titles = data.attributes[name].take(some).to_pylist()
        lines = [
            f"  {found.codes2[row]:>3}  {str(title)[:80]}"
            for row, title in zip(some, titles, strict=True)
        ]
        told.append(
            f"cluster {cluster}, {len(own):,} items (code, {name}):\n" + "\n".join(lines)
        )
    return told
