"""The index for a catalogue: which kind, and how many lists a search must visit.

Exact (`Flat`) up to 50,000 items, where it is fast enough; above that `IVF...,SQ8`: in speed,
memory and recall under exclusions it beats the graph indexes that were measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.arrays import Floats, Rows
from index.centres import Effort, Look, densities_by, mean_density, shares_of
from index.item_index import ItemIndex, exact_neighbours
from index.searching.effort import TUNED_COUNT, effort_for, most_lists, slack
from index.searching.limits import LIMITS
from index.searching.scores import best_of_each

FLAT, FLAT_LIMIT = "Flat", 50_000
WANTED_RECALL = 0.955  # answers leave out what was seen, look deeper for it: theirs is 0.951
TUNING_QUERIES = 4_000  # tell a mean within 0.001; for more candidates, which cost more, fewer
FEW = 100  # and no less
STEEPNESSES = tuple(round(4 * 1.1**step, 1) for step in range(30))  # tried: 4 to 63
JUDGED = 1_000  # queries by which one is chosen
HEADROOM, STEP = 0.5, 1 / 256  # the reach is tuned from so much above the expected, so finely
STEPS = 2_048  # to 7.5 below
LEAST_DENSITY = np.exp(np.float32(-40))  # everywhere, nearly
REPORTED_COUNTS = (100, 200, 1_000)
TOGETHER = 16  # queries searched for at once


@dataclass(frozen=True)
class IndexCard:
    """What was built, and how well it finds what exact search finds."""

    factory: str
    nprobe: int | None  # lists that a query visits, on average
    looks: Sequence[Look]  # how far it looks for them, by depth
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
        return index, IndexCard(FLAT, None, (), exact)
    tuned, looks, recall = tune(index, vectors, queries[:TUNING_QUERIES])
    return tuned, IndexCard(factory, tuned.nprobe, looks, recall)


def factory_for(items: int) -> str:
    """Return which index so many items want, in the words of FAISS."""
    return FLAT if items <= FLAT_LIMIT else f"IVF{list_count(items)},SQ8"


def list_count(items: int) -> int:
    """Return the number of IVF lists: the power of two nearest to 4 sqrt(items)."""
    return int(2 ** round(np.log2(4 * np.sqrt(items))))


def tune(
    index: ItemIndex, vectors: Floats, queries: Floats
) -> tuple[ItemIndex, Sequence[Look], dict[int, float]]:
    """Find for each count how far must be looked for the recall, so that little is read.

    `nprobe` becomes the number of lists that a query for TUNED_COUNT visits so, on average.

    returns  the index that looks so far; and what it finds
    """
    looks: tuple[Look, ...] = ()
    measured, lists = {}, index.lists_of_rows()
    for count in REPORTED_COUNTS:
        some = queries[: max(FEW, len(queries) * TUNED_COUNT // count)]
        own = measured[count] = Measured(vectors, some, exact_neighbours(vectors, some, count))
        looks += (tuned_look(index, expected_look(index, lists, own), own),)
        if count == TUNED_COUNT:  # how deep others look depends on it
            index.handle.nprobe = mean_lists(index.looking(looks), queries)
    tuned = index.looking(looks)
    recall = {
        count: own.recall(tuned, effort_for(tuned, count, 1.0, LIMITS))
        for count, own in measured.items()
    }
    return tuned, looks, recall


def expected_look(index: ItemIndex, lists: Rows, measured: "Measured") -> Look:
    """Return how far to look if all that stands in a list is found, with the fewest rows read.

    lists  [items]  see `lists_of_rows`
    """
    queries, held = measured.queries[:JUDGED], lists[measured.truth[:JUDGED]]
    scores, shares = queries @ index.centre_vectors().T, shares_of(index.list_sizes())

    def tried(steepness: float) -> tuple[float, float]:  # the share read, and the reach
        densities = densities_by(scores, steepness)
        densities /= mean_density(densities, shares)[:, np.newaxis]
        sought = np.take_along_axis(densities, held, axis=1)
        floor = max(LEAST_DENSITY, np.quantile(sought, 1 - WANTED_RECALL))
        return float(((densities >= floor) @ shares).mean()), float(np.log(floor))

    steepness = min(STEEPNESSES, key=lambda one: tried(one)[0])
    return Look(measured.depth, tried(steepness)[1], steepness)


def tuned_look(index: ItemIndex, expected: Look, measured: "Measured") -> Look:
    """Return the greatest reach that gives the recall, near the expected; else the least.

    Rounding and what is fetched beyond the count let it differ.
    """
    effort = Effort(measured.depth, most=most_lists(index, LIMITS))

    def look_of(step: int) -> Look:
        return expected._replace(reach=expected.reach + HEADROOM - step * STEP)

    def is_enough(step: int) -> bool:
        return measured.recall(index.looking([look_of(step)]), effort) >= WANTED_RECALL

    return look_of(least(is_enough, 0, STEPS))


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

    @property
    def depth(self) -> float:
        """Return how deep the truth lies, see `index.centres.Look`."""
        return int(self.truth.shape[1]) / TUNED_COUNT

    def recall(self, index: ItemIndex, effort: Effort) -> float:
        """Return the share of the exact best that a look at an index gives.

        Where that is short of candidates an answer looks again, so answers may have more.
        """
        count = self.truth.shape[1]
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
