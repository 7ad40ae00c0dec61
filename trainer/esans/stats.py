"""Statistics of a cluster map, to judge its quality.

Codebook collapse (a few codes hold most items) shows in the perplexity; whether the clusters
are meaningful shows in the agreement with categories and in the code sharing of item pairs.
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
from trainer.data.interactions import TRAIN, VALID, build_cases, build_histories, training_counts

SHOWN_CLUSTERS, SHOWN_TITLES = 3, 8
QUANTILES = (0, 0.25, 0.5, 0.75, 1)
NUM_PAIRS = 200_000  # sampled to estimate how often items of one history share a code
CATEGORIES = ("category", "categories", "main_category", "department", "genre", "genres", "type")
TITLES = ("title", "name")

CodeArray = NDArray[np.integer]


@dataclass(frozen=True)
class LevelSizes:
    """Distribution of the items over the codes of one level.

    Attributes:
        used: number of codes with items.
        perplexity: exp(entropy), the effective number of codes.
        quantiles: of the sizes: minimum, quartiles, maximum.
    """

    used: int
    perplexity: float
    quantiles: tuple[float, ...]


def describe_cluster_map(
    clusters: ClusterMap, data: Dataset, category: str | None, rng: np.random.Generator
) -> str:
    """Render statistics and examples of a cluster map of this dataset as text.

    Args:
        clusters: built from the dataset.
        data: the dataset.
        category: column to compare with; None selects a likely one.
        rng: samples pairs and examples.

    Raises:
        ConfigError: the column does not exist.
    """
    column = category_column(data.attributes, category)
    codes: dict[str, CodeArray] = {
        "cluster": clusters.codes1,
        "level 2": clusters.codes2,
        "cell": clusters.layout.cells,
    }
    lines = [
        f"cluster map {clusters.version}: {len(clusters):,} items, made of "
        + ", ".join(f"{name} ({n:,})" for name, n in clusters.made.get("items_with", {}).items()),
        _sizes_table(codes),
        f"items alone in their cell: {singleton_share(clusters.layout.cells):.1%}",
        _agreement_table(codes, data, column),
        _code_sharing_table(codes, data, rng),
        *sample_clusters(clusters, data, rng),
    ]
    return "\n\n".join(lines)


def _sizes_table(codes: dict[str, CodeArray]) -> str:
    rows = [
        [name, level.used, f"{level.perplexity:.1f}", *(f"{size:.0f}" for size in level.quantiles)]
        for name, level in zip(codes, map(measure_level, codes.values()), strict=True)
    ]
    head = ["", "used", "perplexity", "fewest items", "25 %", "median", "75 %", "most"]
    return tabulate(rows, head, disable_numparse=True, colalign=("left",) + ("right",) * 7)


def _agreement_table(codes: dict[str, CodeArray], data: Dataset, column: str | None) -> str:
    if column is None:
        return "no category column found; name one with --category to measure agreement"
    labelled, labels = load_labels(data, column)
    rows = [
        [name, *(f"{score:.3f}" for score in mutual_information(codes[name][labelled], labels))]
        for name in ("cluster", "cell")
    ]
    head = f"agreement with {column} ({len(np.unique(labels))} values, {len(labelled):,} items)"
    return tabulate(rows, [head, "NMI", "adjusted"], disable_numparse=True)


def _code_sharing_table(
    codes: dict[str, CodeArray], data: Dataset, rng: np.random.Generator
) -> str:
    rows = []
    for name in ("cluster", "cell"):
        shares = measure_code_sharing(codes[name], data, rng)
        baseline = shares["random interactions"] or np.nan
        columns = {
            "two items share a": name,
            **{pairs: f"{share:.4f}" for pairs, share in shares.items()},
            "history / random": f"{shares['same history'] / baseline:.1f}",
            "held out / random": f"{shares['history and held out'] / baseline:.1f}",
        }
        rows.append(columns)
    return tabulate(rows, headers="keys", disable_numparse=True)


def sample_clusters(clusters: ClusterMap, data: Dataset, rng: np.random.Generator) -> list[str]:
    """List sampled items of a few clusters of at least median size."""
    name = title_column(data.attributes)
    sizes = clusters.layout.cluster_sizes
    eligible = np.flatnonzero(sizes >= np.median(sizes[sizes > 0]))
    shown = rng.choice(eligible, min(SHOWN_CLUSTERS, len(eligible)), replace=False)
    examples = []
    for cluster in np.sort(shown):
        members = np.flatnonzero(clusters.codes1 == cluster)
        rows = np.sort(rng.choice(members, min(SHOWN_TITLES, len(members)), replace=False))
        rows = rows[np.argsort(clusters.codes2[rows], kind="stable")]
        titles = data.attributes[name].take(rows).to_pylist()
        head = f"cluster {cluster}, {len(members):,} items (code, {name}):"
        lines = [
            f"  {clusters.codes2[row]:>3}  {str(title or data.item_ids[row])[:80]}"
            for row, title in zip(rows, titles, strict=True)
        ]
        examples.append("\n".join([head, *lines]))
    return examples


def measure_level(codes: CodeArray) -> LevelSizes:
    """Measure the distribution of the items over the codes of one level."""
    sizes = np.unique(codes, return_counts=True)[1]
    shares = sizes / sizes.sum()
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    return LevelSizes(len(sizes), perplexity, tuple(np.quantile(sizes, QUANTILES).tolist()))


def singleton_share(cells: CodeArray) -> float:
    """Return the share of items that are the only one in their cell."""
    sizes = np.unique(cells, return_counts=True)[1]
    return float((sizes == 1).sum() / len(cells))


def load_labels(data: Dataset, column: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of labelled items, and the label of each as a number."""
    labels = first_labels(data.attributes, column)
    rows = np.flatnonzero([label is not None for label in labels])
    return rows, np.unique([str(labels[row]) for row in rows], return_inverse=True)[1]


def mutual_information(codes: CodeArray, labels: NDArray[np.int64]) -> tuple[float, float]:
    """Return normalised and adjusted mutual information of codes and labels, 1 if identical.

    The normalised one grows with the number of codes; the adjusted one corrects for chance.
    """
    scores = (normalized_mutual_info_score, adjusted_mutual_info_score)
    normalised, adjusted = (float(score(labels, codes)) for score in scores)
    return normalised, adjusted


def measure_code_sharing(
    codes: CodeArray, data: Dataset, rng: np.random.Generator
) -> dict[str, float]:
    """Measure how often two items share a code, for four distributions of pairs.

    Returns:
        "same history": of training; too favourable where behaviour is a modality.
        "history and held out": an item of a training history and a held-out item of the user.
        "random interactions": in proportion to popularity, the fair baseline.
        "random items": uniform over pairs of different items.
    """

    def share(pairs: NDArray[np.int32]) -> float:
        return float((codes[pairs[0]] == codes[pairs[1]]).mean()) if pairs.size else np.nan

    popularity = np.bincount(codes, weights=training_counts(data.interactions, len(data.item_ids)))
    sizes = np.bincount(codes)
    count = max(2, len(codes))
    return {
        "same history": share(sample_history_pairs(data, rng)),
        "history and held out": share(sample_held_out_pairs(data, rng)),
        "random interactions": float(((popularity / popularity.sum()) ** 2).sum()),
        "random items": float((sizes * (sizes - 1)).sum() / (count * (count - 1))),
    }


def sample_history_pairs(data: Dataset, rng: np.random.Generator) -> NDArray[np.int32]:
    """Sample pairs of different items of one training history; [2, pairs]."""
    lists = build_histories(data.interactions, (TRAIN,), len(data.user_ids))
    lengths = np.diff(lists.offsets)
    users = np.repeat(np.arange(len(lengths)), lengths)
    positions = np.flatnonzero(lengths[users] > 1)
    if not len(positions):
        return np.zeros((2, 0), dtype=np.int32)
    positions = rng.choice(positions, NUM_PAIRS)
    starts, sizes = lists.offsets[users[positions]], lengths[users[positions]]
    shifts = 1 + rng.integers(0, sizes - 1)
    others = starts + (positions - starts + shifts) % sizes
    return np.stack([lists.item_rows[positions], lists.item_rows[others]])


def sample_held_out_pairs(data: Dataset, rng: np.random.Generator) -> NDArray[np.int32]:
    """Pair each validation item with a sampled training item of its user; [2, pairs]."""
    validation = build_cases(data.interactions, VALID, len(data.user_ids))
    owners = np.repeat(np.arange(len(validation.user_rows)), np.diff(validation.targets.offsets))
    starts = validation.histories.offsets[owners]
    sizes = validation.histories.offsets[owners + 1] - starts
    earlier = validation.histories.item_rows[starts + rng.integers(0, sizes)]
    return np.stack([earlier, validation.targets.item_rows])


def category_column(attributes: pa.Table, requested: str | None) -> str | None:
    """Return the category column: the requested one, else a likely one, else None.

    Raises:
        ConfigError: the requested column does not exist.
    """
    names = attributes.column_names
    if requested is not None and requested not in names:
        raise ConfigError(
            f"--category: the items have no column {requested!r}; they have {', '.join(names)}"
        )
    return requested or _first_match(CATEGORIES, names)


def title_column(attributes: pa.Table) -> str:
    """Return the column with a display name of the items; the item id if there is none."""
    return _first_match(TITLES, attributes.column_names) or "item_id"


def first_labels(attributes: pa.Table, column: str) -> list[str | None]:
    """Return the label of each item, None if it has none.

    Of several values, in a list or a delimited string ("Action|War"), it is the first.
    """
    return [_first_label(value) for value in attributes[column].to_pylist()]


def _first_label(value: object) -> str | None:
    if isinstance(value, list):
        value = value[0] if value else None
    return None if value is None else str(value).split("|")[0] or None


def _first_match(candidates: tuple[str, ...], names: list[str]) -> str | None:
    by_lower = {name.lower(): name for name in names}
    return next((by_lower[name] for name in candidates if name in by_lower), None)
