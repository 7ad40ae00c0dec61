"""The index for a catalogue: which kind, and how many lists a search must visit.

Exact (`Flat`) up to 50,000 items, where it is fast enough; above that `IVF...,SQ8`: in speed,
memory and recall under exclusions it beats the graph indexes that were measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.centres import Effort, Look, densities_by, mean_density
from index.id_table import Rows
from index.item_index import Floats, ItemIndex, exact_neighbours
from index.searching.effort import TUNED_COUNT, effort_for, slack
from index.searching.limits import LIMITS
from index.searching.scores import best_of_each

FLAT, FLAT_LIMIT = "Flat", 50_000
WANTED_RECALL = 0.955  # answers leave out what was seen, look deeper for it: theirs is 0.951
TUNING_QUERIES = 4_000  # tell a mean within 0.001; for more candidates, which cost more, fewer
FEW = 100  # and no less
STEEPNESSES = tuple(round(4 * 1.1**step, 1) for step in range(30))  # tried: 4 to 63
JUDGED = 1_000  # queries by which one is chosen
NARROWEST, STEP = 16.0, 1 / 256  # the reach is tuned from here on, so finely
STEPS = 6_144  # down to -8
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
    looks: list[Look] = []
    measured, lists = {}, index.lists_of_rows()
    for count in REPORTED_COUNTS:
        some = queries[: max(FEW, len(queries) * TUNED_COUNT // count)]
        own = measured[count] = Measured(vectors, some, exact_neighbours(vectors, some, count))
        steepness = steepness_for(index, lists, own)
        looks.append(look_for(index, looks, steepness, own))
        if count == TUNED_COUNT:  # how deep others look depends on it
            index.handle.nprobe = mean_lists(index.looking(looks), queries)
    tuned = index.looking(looks)
    return tuned, looks, {count: own.recall(tuned) for count, own in measured.items()}


def steepness_for(index: ItemIndex, lists: Rows, measured: "Measured") -> float:
    """Return the steepness with which the fewest rows hold what is sought.

    lists  [items]  see `lists_of_rows`
    """
    centres = index.looking([Look(1.0, 0.0, None)]).centres
    assert centres is not None  # what is tuned has lists
    scores = measured.queries[:JUDGED] @ centres.turned
    held = lists[measured.truth[:JUDGED]]

    def share_read(steepness: float) -> float:
        densities = densities_by(scores, steepness)
        densities /= mean_density(densities, centres.shares)[:, np.newaxis]
        sought = np.take_along_axis(densities, held, axis=1)
        is_visited = densities >= np.quantile(sought, 1 - WANTED_RECALL)
        return float((is_visited @ centres.shares).mean())

    return min(STEEPNESSES, key=share_read)


def look_for(
    index: ItemIndex, before: Sequence[Look], steepness: float, measured: "Measured"
) -> Look:
    """Return the greatest reach that gives the recall; the least there is, if none.

    before  for lesser depths: their reach is greater
    """
    depth = measured.truth.shape[1] / TUNED_COUNT

    def look_of(step: int) -> Look:
        return Look(depth, NARROWEST - step * STEP, steepness)

    def is_enough(step: int) -> bool:
        return measured.recall(index.looking([*before, look_of(step)])) >= WANTED_RECALL

    nearer = round((NARROWEST - before[-1].reach) / STEP) if before else 0
    return look_of(least(is_enough, nearer, STEPS))


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
