"""The index for a catalogue: which kind, and which probing policies reach the recall aimed at.

Exact (`Flat`) up to 50,000 items, where it is fast enough; above that `IVF...,SQ8`: in speed,
memory and recall under exclusions it beats the graph indexes that were measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.ann.index import ItemIndex, exact_neighbours
from index.ann.probing import (
    TUNED_COUNT,
    ProbingPolicy,
    SearchEffort,
    effort_for,
    log_mean_density,
    shares_of,
    slack,
)
from index.ann.rescore import best_of_each
from index.arrays import Floats, Rows

FLAT, FLAT_LIMIT = "Flat", 50_000
AIMED_RECALL = 0.955  # excluding seen items costs 0.004: requests get 0.951
TUNING_QUERIES = 4_000  # tell a mean within 0.001; for more results, which cost more, fewer
MIN_QUERIES = 100
SLOPES = tuple(round(4 * 1.1**step, 1) for step in range(30))  # tried: 4 to 63
STEEPNESS_QUERIES = 1_000  # by which one is chosen
MIN_LOG_THRESHOLD = -40.0  # all lists, nearly
MAX_TRIES = 4  # at the recall, see `fit_policy`
REPORTED_COUNTS = (100, 200, 1_000)
BATCH = 16  # queries searched at once


@dataclass(frozen=True)
class IndexReport:
    """What was built, and how well it finds what exact search finds.

    Attributes:
        factory: Of FAISS.
        nprobe: Lists that a query probes, on average; None where it is exact.
        policies: By depth; empty where it is exact.
        recall: count -> the share of the exact best that is found.
    """

    factory: str
    nprobe: int | None
    policies: Sequence[ProbingPolicy]
    recall: dict[int, float]


@dataclass(frozen=True)
class Benchmark:
    """Queries [queries, dim] by which an index is judged, and their exact best rows."""

    vectors: Floats
    queries: Floats
    truth: NDArray[np.int64]

    @property
    def depth(self) -> float:
        """How deep the truth lies, see `SearchEffort`."""
        return int(self.truth.shape[1]) / TUNED_COUNT

    def recall(self, index: ItemIndex, effort: SearchEffort) -> float:
        """Return the share of the truth that one search finds.

        Where that is short of candidates a request searches again, and may find more.
        """
        count = self.truth.shape[1]
        shares = []
        for first in range(0, len(self.queries), BATCH):
            queries = self.queries[first : first + BATCH]
            rows, _ = index.search(queries, count + slack(count), effort)
            found = best_of_each(self.vectors, queries, rows, [count] * len(queries))
            for best, (own, _) in zip(self.truth[first:], found, strict=False):
                shares.append(float(np.isin(best, own).mean()))
        return float(np.mean(shares))


def build_item_index(
    vectors: Floats, queries: Floats, seed: int = 0
) -> tuple[ItemIndex, IndexReport]:
    """Build the index for a catalogue, and tune it on queries like those it will see.

    Args:
        vectors: [items, dim] unit rows.
        queries: [queries, dim] from validation; the first TUNING_QUERIES are used.
        seed: Of k-means.
    """
    factory = factory_for(len(vectors))
    if factory == FLAT:
        exact = {count: 1.0 for count in REPORTED_COUNTS if count <= len(vectors)}
        return ItemIndex.exact(vectors), IndexReport(FLAT, None, (), exact)
    return tune(ItemIndex.trained(vectors, factory, seed), factory, vectors, queries)


def extend_item_index(
    saved: Path, factory: str, vectors: Floats, queries: Floats, seed: int
) -> tuple[ItemIndex, IndexReport]:
    """Append to a saved index the last rows of a catalogue, which it lacks, and tune it again.

    Where so many items need another factory than the saved one, that is built.

    Raises RuntimeError if FAISS cannot read the file.
    """
    if factory == FLAT or factory_for(len(vectors)) != factory:
        return build_item_index(vectors, queries, seed)
    return tune(ItemIndex.extended(saved, vectors), factory, vectors, queries)


def factory_for(items: int) -> str:
    """Return the FAISS factory string for so many items."""
    return FLAT if items <= FLAT_LIMIT else f"IVF{list_count(items)},SQ8"


def list_count(items: int) -> int:
    """Return the number of inverted lists: the power of two nearest to 4 sqrt(items)."""
    return int(2 ** round(np.log2(4 * np.sqrt(items))))


def tune(
    index: ItemIndex, factory: str, vectors: Floats, queries: Floats
) -> tuple[ItemIndex, IndexReport]:
    """Fit a policy for each reported count, and measure the recall."""
    queries, lists = queries[:TUNING_QUERIES], index.lists_of_rows()
    policies: list[ProbingPolicy] = []
    recall = {}
    for count in REPORTED_COUNTS:
        some = queries[: max(MIN_QUERIES, len(queries) * TUNED_COUNT // count)]
        own = Benchmark(vectors, some, exact_neighbours(vectors, some, count))
        policy, recall[count] = fit_policy(index, lists, own)
        policies.append(policy)
    tuned = index.with_policies(policies)
    assert tuned.centroids is not None  # what is tuned has lists
    probes = tuned.centroids.probe(queries, SearchEffort())
    tuned.handle.nprobe = max(1, round(float((probes.lists >= 0).sum(axis=1).mean())))
    return tuned, IndexReport(factory, tuned.nprobe, policies, recall)


def fit_policy(index: ItemIndex, lists: Rows, benchmark: Benchmark) -> tuple[ProbingPolicy, float]:
    """Return the policy that reads the fewest rows for the recall aimed at, and its recall.

    The probed lists must hold that share of the truth, and what 8-bit rounding costs besides.
    """
    scores = benchmark.queries @ index.centroid_vectors().T
    shares, held = shares_of(index.list_sizes()), lists[benchmark.truth]
    some = slice(STEEPNESS_QUERIES)
    slope = min(SLOPES, key=lambda one: share_read(scores[some], held[some], shares, one))
    sought = np.take_along_axis(densities_of(scores, shares, slope), held, axis=1)
    effort = effort_for(benchmark.truth.shape[1], 1.0, index.rows_per_list)
    share, policy, recall = AIMED_RECALL, ProbingPolicy(benchmark.depth, 0.0, slope), 0.0
    for _ in range(MAX_TRIES):
        log_threshold = max(MIN_LOG_THRESHOLD, float(np.quantile(sought, 1 - share)))
        policy = policy._replace(log_threshold=log_threshold)
        recall = benchmark.recall(index.with_policies([policy]), effort)
        if recall >= AIMED_RECALL:
            break
        share = min(1.0, share + 1.1 * (AIMED_RECALL - recall) + 1e-4)
    return policy, recall


def share_read(scores: Floats, held: Rows, shares: Floats, slope: float) -> float:
    """Return the share of all rows read, if the probed lists are to hold enough of the truth.

    Args:
        scores: [queries, lists] of the coarse centroids.
        held: [queries, count] the lists that hold the truth.
        shares: [lists] of all rows.
        slope: See `index.ann.probing`.
    """
    densities = densities_of(scores, shares, slope)
    log_threshold = np.quantile(np.take_along_axis(densities, held, axis=1), 1 - AIMED_RECALL)
    return float(((densities >= log_threshold) @ shares).mean())


def densities_of(scores: Floats, shares: Floats, slope: float) -> Floats:
    """Return the log density of results in each list, relative to that in all items."""
    mean = log_mean_density(scores, shares, slope)
    densities: Floats = scores * np.float32(slope) - mean[:, np.newaxis]
    return densities
