"""Statistics of a cluster map, so that a person sees whether it makes sense.

Collapse (a few codes take all items) shows in the perplexity, nonsense in the tables below it.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from tabulate import tabulate

from index.cluster_map import ClusterMap
from index.errors import ConfigError
from trainer.data.dataset import Dataset
from trainer.data.interactions import TRAIN, VALID, cases, histories, training_counts

SHOWN_CLUSTERS, SHOWN_TITLES = 3, 8
QUANTILES = (0, 0.25, 0.5, 0.75, 1)
PAIRS = 200_000  # drawn to estimate how often items of one history share a code
CATEGORIES = ("category", "categories", "main_category", "department", "genre", "genres", "type")
TITLES = ("title", "name")

CodeArray = NDArray[np.integer]


@dataclass(frozen=True)
class LevelSizes:
    """How one level of codes divides the items.

    perplexity  exp(entropy): as many codes of equal size would be as uncertain
    quantiles   of the sizes: fewest, quarter, median, three quarters, most
    """

    used: int
    perplexity: float
    quantiles: tuple[float, ...]


def describe_map(
    found: ClusterMap, data: Dataset, category: str | None, rng: np.random.Generator
) -> str:
    """Describe a map made of this dataset, for a person.

    category  the column to compare with; None guesses one

    Raises ConfigError if there is no such column.
    """
    column = category_column(data.attributes, category)
    codes: dict[str, CodeArray] = {
        "cluster": found.codes1,
        "level 2": found.codes2,
        "cell": found.layout.cells,
    }
    lines = [
        f"cluster map {found.version}: {len(found):,} items, made of "
        + ", ".join(f"{name} ({n:,})" for name, n in found.made.get("items_with", {}).items()),
        _sizes_table(codes),
        f"items alone in their cell: {share_alone(found.layout.cells):.1%}",
        _agreement_table(codes, data, column),
        _togetherness_table(codes, data, rng),
        *_examples(found, data, rng),
    ]
    return "\n\n".join(lines)


def _sizes_table(codes: dict[str, CodeArray]) -> str:
    rows = [
        [name, one.used, f"{one.perplexity:.1f}", *(f"{size:.0f}" for size in one.quantiles)]
        for name, one in zip(codes, map(level_of, codes.values()), strict=True)
    ]
    head = ["", "used", "perplexity", "fewest items", "25 %", "median", "75 %", "most"]
    return tabulate(rows, head, disable_numparse=True, colalign=("left",) + ("right",) * 7)


def _agreement_table(codes: dict[str, CodeArray], data: Dataset, column: str | None) -> str:
    if column is None:
        return "no category column found; give one with --category to compare with"
    known, labels = labels_of(data, column)
    rows = [
        [name, *(f"{one:.3f}" for one in agreement(codes[name][known], labels))]
        for name in ("cluster", "cell")
    ]
    told = f"agreement with {column} ({len(np.unique(labels))} values, {len(known):,} items)"
    return tabulate(rows, [told, "NMI", "adjusted"], disable_numparse=True)


def _togetherness_table(
    codes: dict[str, CodeArray], data: Dataset, rng: np.random.Generator
) -> str:
    rows = []
    for name in ("cluster", "cell"):
        found = togetherness(codes[name], data, rng)
        chance = found["random takes"] or np.nan
        columns = {
            "two items share a": name,
            **{pairs: f"{share:.4f}" for pairs, share in found.items()},
            "history / takes": f"{found['one history'] / chance:.1f}",
            "held out / takes": f"{found['history and held out'] / chance:.1f}",
        }
        rows.append(columns)
    return tabulate(rows, headers="keys", disable_numparse=True)


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
        told.append(f"cluster {cluster}, {len(own):,} items (code, {name}):\n" + "\n".join(lines))
    return told


def level_of(codes: CodeArray) -> LevelSizes:
    """Count how one level divides the items."""
    sizes = np.unique(codes, return_counts=True)[1]
    shares = sizes / sizes.sum()
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    return LevelSizes(len(sizes), perplexity, tuple(np.quantile(sizes, QUANTILES).tolist()))


def share_alone(cells: CodeArray) -> float:
    """Return the share of items that are the only one of their cell."""
    sizes = np.unique(cells, return_counts=True)[1]
    return float((sizes == 1).sum() / len(cells))


def labels_of(data: Dataset, column: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that have a label, and the number of each one's label."""
    labels = first_labels(data.attributes, column)
    rows = np.flatnonzero([label is not None for label in labels])
    return rows, np.unique([str(labels[row]) for row in rows], return_inverse=True)[1]


def agreement(codes: CodeArray, labels: NDArray[np.int64]) -> tuple[float, float]:
    """Measure how far codes and labels say the same: 0 nothing, 1 everything.

    returns  the normalised mutual information, which grows with the number of codes; the
             adjusted one, chance taken out
    """
    scores = (normalized_mutual_info_score, adjusted_mutual_info_score)
    normalised, adjusted = (float(score(labels, codes)) for score in scores)
    return normalised, adjusted


def togetherness(codes: CodeArray, data: Dataset, rng: np.random.Generator) -> dict[str, float]:
    """Measure how likely two items share a code, for different ways to pick the two.

    one history           of training, a sample: flattering where behaviour is a modality
    history and held out  an item of a training history, and what that user took next
    random takes          popular items meet more often: the fair comparison
    random items          each item alike
    """

    def share(pairs: NDArray[np.int32]) -> float:
        return float((codes[pairs[0]] == codes[pairs[1]]).mean()) if pairs.size else np.nan

    takes = np.bincount(codes, weights=training_counts(data.interactions, len(data.item_ids)))
    sizes = np.bincount(codes)
    count = max(2, len(codes))
    return {
        "one history": share(pairs_of_history(data, rng)),
        "history and held out": share(pairs_held_out(data, rng)),
        "random takes": float(((takes / takes.sum()) ** 2).sum()),
        "random items": float((sizes * (sizes - 1)).sum() / (count * (count - 1))),
    }


def pairs_of_history(data: Dataset, rng: np.random.Generator) -> NDArray[np.int32]:
    """Draw pairs of different items of one training history; [2, pairs]."""
    taken = histories(data.interactions, (TRAIN,), len(data.user_ids))
    lengths = np.diff(taken.offsets)
    users = np.repeat(np.arange(len(lengths)), lengths)
    places = np.flatnonzero(lengths[users] > 1)
    if not len(places):
        return np.zeros((2, 0), dtype=np.int32)
    places = rng.choice(places, PAIRS)
    starts, sizes = taken.offsets[users[places]], lengths[users[places]]
    steps = 1 + rng.integers(0, sizes - 1)
    others = starts + (places - starts + steps) % sizes
    return np.stack([taken.item_rows[places], taken.item_rows[others]])


def pairs_held_out(data: Dataset, rng: np.random.Generator) -> NDArray[np.int32]:
    """Pair each validation item with one of its user's training items; [2, pairs]."""
    asked = cases(data.interactions, VALID, len(data.user_ids))
    owners = np.repeat(np.arange(len(asked.user_rows)), np.diff(asked.targets.offsets))
    starts = asked.histories.offsets[owners]
    sizes = asked.histories.offsets[owners + 1] - starts
    earlier = asked.histories.item_rows[starts + rng.integers(0, sizes)]
    return np.stack([earlier, asked.targets.item_rows])


def category_column(attributes: pa.Table, wanted: str | None) -> str | None:
    """Return the column to compare with: the one asked for, else a likely one, else None.

    Raises ConfigError if there is no column of the name asked for.
    """
    names = attributes.column_names
    if wanted is not None and wanted not in names:
        raise ConfigError(
            f"--category: the items have no column {wanted!r}; they have {', '.join(names)}"
        )
    return wanted or _first_of(CATEGORIES, names)


def title_column(attributes: pa.Table) -> str:
    """Return the column that names an item to a person; the id where there is none."""
    return _first_of(TITLES, attributes.column_names) or "item_id"


def first_labels(attributes: pa.Table, column: str) -> list[str | None]:
    """Return each item's label, None where it has none.

    Of several values, in a list or in one text ("Action|War"), the first is taken.
    """
    return [_label_of(value) for value in attributes[column].to_pylist()]


def _label_of(value: object) -> str | None:
    if isinstance(value, list):
        value = value[0] if value else None
    return None if value in (None, "") else str(value).split("|")[0]


def _first_of(likely: tuple[str, ...], names: list[str]) -> str | None:
    by_lower = {name.lower(): name for name in names}
    return next((by_lower[one] for one in likely if one in by_lower), None)
