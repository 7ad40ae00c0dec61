"""The index for a catalogue: which kind, and how many lists a search must visit.

Exact (`Flat`) up to 50,000 items, where it is fast enough; above that `IVF...,SQ8`: in speed,
memory and recall under exclusions it beats the graph indexes that were measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.effort import TUNED_COUNT, lists_for, slack
from index.item_index import Floats, ItemIndex, exact_neighbours
from index.scores import best_rows, exact_scores

FLAT_LIMIT = 50_000
WANTED_RECALL = 0.955  # of TUNED_COUNT: half a hundredth in hand for what is excluded
FINENESS = 8  # nprobe is right to one part in so many
REPORTED_COUNTS = (100, 200, 1_000)


@dataclass(frozen=True)
class IndexCard:
    """What was built, and how well it finds what exact search finds."""

    factory: str
    nprobe: int | None
    recall: dict[int, float]  # at count -> share of the exact best `count` that is found


def build_item_index(
    vectors: Floats, queries: Floats, seed: int
) -> tuple[ItemIndex, IndexCard]:
    """Build the index for a catalogue, and tune it on queries like those it will see.

    vectors  [items, dim]    unit rows
    queries  [queries, dim]  from validation histories; at most the first 1,000 are used
    """
    count = len(vectors)
    if count <= FLAT_LIMIT:
        exact = {n: 1.0 for n in REPORTED_COUNTS if n <= count}
        return ItemIndex.exact(vectors), IndexCard("Flat", None, exact)
    factory = f"IVF{list_count(count)},SQ8"
    index = ItemIndex.trained(vectors, factory, seed)
    recall = tune(index, vectors, queries[:1_000])
    return index, IndexCard(factory, index.nprobe, recall)


def list_count(items: int) -> int:
    """Return the number of IVF lists: the power of two nearest to 4 sqrt(items)."""
    return int(2 ** round(np.log2(4 * np.sqrt(items))))


def tune(index: ItemIndex, vectors: Floats, queries: Floats) -> dict[int, float]:
    """Find the least nprobe that reaches the recall at TUNED_COUNT; return what it reaches."""
    truth = exact_neighbours(vectors, queries, max(REPORTED_COUNTS))

    def is_enough(nprobe: int) -> bool:
        index.handle.nprobe = nprobe
        found = measure_recall(index, vectors, queries, truth, [TUNED_COUNT])
        return found[TUNED_COUNT] >= WANTED_RECALL

    low, high = 0, 1  # too few; perhaps enough
    while high < index.list_count and not is_enough(high):
        low, high = high, min(2 * high, index.list_count)
    while high - low > max(1, low // FINENESS):
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    index.handle.nprobe = high
    return measure_recall(index, vectors, queries, truth, REPORTED_COUNTS)


def measure_recall(
    index: ItemIndex,
    vectors: Floats,
    queries: Floats,
    truth: NDArray[np.int64],
    counts: Sequence[int],
) -> dict[int, float]:
    """Return, per count, the share of the exact best that a search with re-scoring returns."""
    found: dict[int, list[float]] = {count: [] for count in counts}
    for query, best in zip(queries, truth, strict=True):
        for count in counts:
            nprobe = lists_for(index, count)
            rows = index.search(query, count + slack(count), nprobe)
            kept = rows[best_rows(rows, exact_scores(vectors, rows, query), count)]
            found[count].append(float(np.isin(best[:count], kept).mean()))
    return {count: float(np.mean(shares)) for count, shares in found.items()}
