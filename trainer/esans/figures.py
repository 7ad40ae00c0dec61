"""Figures of a cluster map: sizes, agreement with a column, and who is found together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from trainer.catalogue import training_counts
from trainer.data.dataset import Dataset
from trainer.data.histories import cases, histories
from trainer.data.interactions import TRAIN, VALID
from trainer.esans.columns import first_labels

QUANTILES = (0, 0.25, 0.5, 0.75, 1)
PAIRS = 200_000  # drawn to tell how often items of one history share a code

Codes = NDArray[np.integer]


@dataclass(frozen=True)
class Level:
    """How one level of codes divides the items.

    perplexity  exp(entropy): as many codes of equal size would be as uncertain
    quantiles   of the sizes: fewest, quarter, median, three quarters, most
    """

    used: int
    perplexity: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Togetherness:
    """How likely two items share a code, for different ways to pick the two."""

    one_history: float  # of training: flattering where behaviour is a modality
    held_out: float  # an item of a training history, and what that user took next
    random_takes: float  # popular items meet more often: the fair comparison
    random_items: float


@dataclass(frozen=True)
class Agreement:
    """How far codes and a column say the same: 0 nothing, 1 everything."""

    normalised: float  # grows with the number of codes
    adjusted: float  # chance taken out


def level_of(codes: Codes) -> Level:
    """Count how one level divides the items."""
    sizes = np.unique(codes, return_counts=True)[1]
    shares = sizes / sizes.sum()
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    return Level(len(sizes), perplexity, tuple(np.quantile(sizes, QUANTILES).tolist()))


def share_alone(cells: Codes) -> float:
    """Return the share of items that are the only one of their cell."""
    sizes = np.unique(cells, return_counts=True)[1]
    return float((sizes == 1).sum() / len(cells))


def labels_of(data: Dataset, column: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that have a label, and the number of each one's label."""
    labels = first_labels(data.attributes, column)
    rows = [row for row, label in enumerate(labels) if label is not None]
    texts = [label for label in labels if label is not None]
    return np.array(rows, dtype=np.int64), np.unique(texts, return_inverse=True)[1]


def agreement(codes: Codes, labels: NDArray[np.int64]) -> Agreement:
    """Compare codes with labels, item by item."""
    return Agreement(
        float(normalized_mutual_info_score(labels, codes)),
        float(adjusted_mutual_info_score(labels, codes)),
    )


def togetherness(codes: Codes, data: Dataset, rng: np.random.Generator) -> Togetherness:
    """Measure how likely two items share a code; of pairs within histories a sample."""

    def share(pairs: NDArray[np.int32]) -> float:
        return float((codes[pairs[0]] == codes[pairs[1]]).mean()) if pairs.size else np.nan

    takes = np.bincount(codes, weights=training_counts(data))
    sizes = np.bincount(codes)
    count = max(2, len(codes))
    return Togetherness(
        one_history=share(pairs_of_history(data, rng)),
        held_out=share(pairs_held_out(data, rng)),
        random_takes=float(((takes / takes.sum()) ** 2).sum()),
        random_items=float((sizes * (sizes - 1)).sum() / (count * (count - 1))),
    )


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
