"""The index for a catalogue: which kind, and how many lists a search must visit.

Exact (`Flat`) up to 50,000 items, where it is fast enough; above that `IVF...,SQ8`: in speed,
memory and recall under exclusions it beats the graph indexes that were measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.centres import Effort
from index.item_index import Floats, ItemIndex, exact_neighbours
from index.searching.effort import TUNED_COUNT
from index.searching.scope import NO_ROWS
from index.searching.search import Ask, Search

FLAT, FLAT_LIMIT = "Flat", 50_000
WANTED_RECALL = 0.955  # of TUNED_COUNT: half a hundredth in hand for what is excluded
STEPS = 256  # from the nearest centre to the mean of all: how finely the reach is tuned
REPORTED_COUNTS = (100, 200, 1_000)


@dataclass(frozen=True)
class IndexCard:
    """What was built, and how well it finds what exact search finds."""

    factory: str
    nprobe: int | None  # lists that a query visits, on average
    reaches: dict[float, float]  # depth -> how far it looks for them, see `index.centres`
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
        return index, IndexCard(FLAT, None, {}, exact)
    tuned, recall = tune(index, vectors, queries[:1_000])
    return tuned, IndexCard(factory, tuned.nprobe, tuned.reaches, recall)


def factory_for(items: int) -> str:
    """Return which index so many items want, in the words of FAISS."""
    return FLAT if items <= FLAT_LIMIT else f"IVF{list_count(items)},SQ8"


def list_count(items: int) -> int:
    """Return the number of IVF lists: the power of two nearest to 4 sqrt(items)."""
    return int(2 ** round(np.log2(4 * np.sqrt(items))))


def tune(
    index: ItemIndex, vectors: Floats, queries: Floats
) -> tuple[ItemIndex, dict[int, float]]:
    """Find the least reach that gives the recall, for each count; return what it gives.

    `nprobe` becomes the number of lists that a query for TUNED_COUNT visits so, on average.
    """
    truth = exact_neighbours(vectors, queries, max(REPORTED_COUNTS))
    reaches: dict[float, float] = {}
    step = 0
    for count in REPORTED_COUNTS:
        depth, chosen = count / TUNED_COUNT, max(100, len(queries) * TUNED_COUNT // count)

        def is_enough(
            step: int, depth: float = depth, count: int = count, chosen: int = chosen
        ) -> bool:
            tried = index.reaching(reaches | {depth: 1 - step / STEPS})
            found = measure_recall(tried, vectors, queries[:chosen], truth[:chosen], [count])
            return found[count] >= WANTED_RECALL

        step = least(is_enough, step, STEPS)
        reaches[depth] = 1 - step / STEPS
    tuned = index.reaching(reaches)
    assert tuned.centres is not None  # what is tuned has lists
    visits = tuned.centres.near(queries, Effort())
    tuned.handle.nprobe = max(1, round(float((visits.lists >= 0).sum(axis=1).mean())))
    return tuned, measure_recall(tuned, vectors, queries, truth, REPORTED_COUNTS)


def least(is_enough: Callable[[int], bool], low: int, most: int) -> int:
    """Return the least number above `low` that is enough; `most` where none is."""
    high = min(low + 1, most)
    while high < most and not is_enough(high):
        low, high = high, min(low + 2 * (high - low), most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def measure_recall(
    index: ItemIndex,
    vectors: Floats,
    queries: Floats,
    truth: NDArray[np.int64],
    counts: Sequence[int],
) -> dict[int, float]:
    """Return, per count, the share of the exact best that a search with re-scoring returns."""
    search = Search(index, vectors)
    found: dict[int, list[float]] = {count: [] for count in counts}
    for query, best in zip(queries, truth, strict=True):
        for count in counts:
            rows, _ = search.find(Ask(query, count, NO_ROWS, None))
            found[count].append(float(np.isin(best[:count], rows).mean()))
    return {count: float(np.mean(shares)) for count, shares in found.items()}
