"""The index for a catalogue: which kind, and how many lists a search must visit.

Exact (`Flat`) up to 50,000 items, where it is fast enough; above that `IVF...,SQ8`: in speed,
memory and recall under exclusions it beats the graph indexes that were measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.item_index import Floats, ItemIndex, exact_neighbours
from index.searching.effort import TUNED_COUNT, lists_for, slack
from index.searching.scores import best_rows, exact_scores

FLAT, FLAT_LIMIT = "Flat", 50_000
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
    factory = factory_for(len(vectors))
    if factory == FLAT:
        return carded(ItemIndex.exact(vectors), factory, vectors, queries)
    return carded(ItemIndex.trained(vectors, factory, seed), factory, vectors, queries)


def extend_item_index(
    saved: Path, factory: str, vectors: Floats, queries: Floats, seed: int
) -> tuple[ItemIndex, IndexCard]:
    """Append to a saved index the last rows of a catalogue, which it lacks, and tune it anew.

    factory  of the saved index; where so many items want another one, that is built

    Raises RuntimeError if FAISS cannot read the file.
    """
    if factory_for(len(vectors)) != factory:
        return build_item_index(vectors, queries, seed)
    return carded(ItemIndex.extended(saved, vectors), factory, vectors, queries)


def carded(
    index: ItemIndex, factory: str, vectors: Floats, queries: Floats
) -> tuple[ItemIndex, IndexCard]:
    """Tune an index, where there is anything to tune, and say what it finds."""
    if factory == FLAT:
        exact = {n: 1.0 for n in REPORTED_COUNTS if n <= len(vectors)}
        return index, IndexCard(FLAT, None, exact)
    recall = tune(index, vectors, queries[:1_000])
    return index, IndexCard(factory, index.nprobe, recall)


def factory_for(items: int) -> str:
    """Return which index so many items want, in the words of FAISS."""
    return FLAT if items <= FLAT_LIMIT else f"IVF{list_count(items)},SQ8"


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
