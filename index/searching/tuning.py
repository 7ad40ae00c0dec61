"""The index for a catalogue: which kind, and how many lists a search must visit.

Exact (`Flat`) up to 50,000 items, where it is fast enough; above that `IVF...,SQ8`: in speed,
memory and recall under exclusions it beats the graph indexes that were measured.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.centres import Effort
from index.item_index import Floats, ItemIndex, exact_neighbours
from index.searching.effort import TUNED_COUNT, effort_for, slack
from index.searching.limits import LIMITS
from index.searching.scores import best_of_each

FLAT, FLAT_LIMIT = "Flat", 50_000
WANTED_RECALL = 0.956  # answers leave out what was seen and look deeper for it: theirs is 0.951
TUNING_QUERIES = 4_000  # tell a mean within 0.001; for more candidates, which cost more, fewer
FEW = 100  # and no less
STEPS = 1_024  # from the nearest centre to the mean of all: how finely the reach is tuned
REPORTED_COUNTS = (100, 200, 1_000)
TOGETHER = 16  # queries searched for at once


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
    queries  [queries, dim]  from validation histories; the first TUNING_QUERIES are used
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
    tuned, recall = tune(index, vectors, queries[:TUNING_QUERIES])
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
    reaches: dict[float, float] = {}
    measured = {}
    for count in REPORTED_COUNTS:
        some = queries[: max(FEW, len(queries) * TUNED_COUNT // count)]
        own = measured[count] = Measured(vectors, some, exact_neighbours(vectors, some, count))
        reaches[count / TUNED_COUNT] = reach_for(index, reaches, count / TUNED_COUNT, own)
        if count == TUNED_COUNT:  # how deep others look depends on it
            index.handle.nprobe = mean_lists(index.reaching(reaches), queries)
    tuned = index.reaching(reaches)
    return tuned, {n: own.recall(tuned) for n, own in measured.items()}


def reach_for(
    index: ItemIndex, reaches: Mapping[float, float], depth: float, measured: "Measured"
) -> float:
    """Return the greatest reach at a depth that gives the recall; the least there is, if none.

    reaches  of the lesser depths: it is less than any of them
    """

    def reach_of(step: int) -> float:
        return 1 - step / STEPS

    def is_enough(step: int) -> bool:
        tried = index.reaching({**reaches, depth: reach_of(step)})
        return measured.recall(tried) >= WANTED_RECALL

    before = round((1 - min(reaches.values(), default=1.0)) * STEPS)
    return reach_of(least(is_enough, before, STEPS))


def mean_lists(index: ItemIndex, queries: Floats) -> int:
    """Return how many lists a query visits on average, one at least."""
    assert index.centres is not None  # what is tuned has lists
    visits = index.centres.near(queries, Effort())
    return max(1, round(float((visits.lists >= 0).sum(axis=1).mean())))


@dataclass(frozen=True)
class Measured:
    """Queries by which an index is judged.

    queries  [queries, dim]
    truth    [queries, count]  the exact best rows
    """

    vectors: Floats
    queries: Floats
    truth: NDArray[np.int64]

    def recall(self, index: ItemIndex) -> float:
        """Return the share of the exact best that the first look at an index gives.

        Where that is short of candidates an answer looks again, so answers may have more.
        """
        count = self.truth.shape[1]
        effort = effort_for(index, count, 1.0, LIMITS)
        shares = []
        for first in range(0, len(self.queries), TOGETHER):
            queries = self.queries[first : first + TOGETHER]
            rows, _ = index.search(queries, count + slack(count), effort)
            found = best_of_each(self.vectors, queries, rows, [count] * len(queries))
            for best, (own, _) in zip(self.truth[first:], found, strict=False):
                shares.append(float(np.isin(best, own).mean()))
        return float(np.mean(shares))


def least(is_enough: Callable[[int], bool], low: int, most: int) -> int:
    """Return the least number above `low` that is enough; `most` where none is."""
    stride = 1
    high = min(low + stride, most)
    while high < most and not is_enough(high):
        stride *= 2
        low, high = high, min(high + stride, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
