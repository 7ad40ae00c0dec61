"""Choose the index type for a catalogue and tune its probing policies to a target recall.

Up to 50,000 items an exact index (`Flat`) is fast enough. Above that, `IVF...,SQ8` beats the graph
indexes that were measured in speed, memory and recall under exclusions.
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
from index.ann.rescore import rank_rows
from index.arrays import Floats, Rows

FLAT, FLAT_LIMIT = "Flat", 50_000
TARGET_RECALL = 0.955  # excluding seen items costs 0.004, which leaves 0.951
TUNING_QUERIES = 4_000  # for a standard error of 0.001; fewer for larger result counts
MIN_QUERIES = 100
SLOPES = tuple(round(4 * 1.1**step, 1) for step in range(30))  # grid from 4 to 63
SLOPE_QUERIES = 1_000  # used to select the slope
MIN_LOG_THRESHOLD = -40.0  # probes nearly all lists
MAX_TRIES = 4  # attempts to reach the target recall, see `fit_policy`
REPORTED_COUNTS = (100, 200, 1_000)
BATCH = 16  # queries per search


@dataclass(frozen=True)
class IndexReport:
    """Type and recall of an index.

    Attributes:
        factory: FAISS factory string.
        nprobe: Mean number of lists probed per query; None for an exact index.
        policies: Ascending by depth; empty for an exact index.
        recall: k -> recall@k against exact search.
    """

    factory: str
    nprobe: int | None
    policies: Sequence[ProbingPolicy]
    recall: dict[int, float]


@dataclass(frozen=True)
class Benchmark:
    """Queries [queries, dim] and the exact top rows [queries, count], to measure recall."""

    vectors: Floats
    queries: Floats
    truth: NDArray[np.int64]

    @property
    def depth(self) -> float:
        """Depth of the ground truth, see `SearchEffort`."""
        return int(self.truth.shape[1]) / TUNED_COUNT

    def recall(self, index: ItemIndex, effort: SearchEffort) -> float:
        """Return the recall of a single search (a request that comes up short searches again)."""
        count = self.truth.shape[1]
        shares = []
        for first in range(0, len(self.queries), BATCH):
            queries = self.queries[first : first + BATCH]
            rows, _ = index.search(queries, count + slack(count), effort)
            ranked = rank_rows(self.vectors, queries, rows, [count] * len(queries))
            for best, (own, _) in zip(self.truth[first:], ranked, strict=False):
                shares.append(float(np.isin(best, own).mean()))
        return float(np.mean(shares))


def build_item_index(
    vectors: Floats, queries: Floats, seed: int = 0
) -> tuple[ItemIndex, IndexReport]:
    """Build the index for a catalogue and tune it on validation queries.

    Args:
        vectors: [items, dim], unit norm.
        queries: [queries, dim]; the first TUNING_QUERIES are used.
        seed: Random seed of k-means.
    """
    factory = factory_for(len(vectors))
    if factory == FLAT:
        exact = {count: 1.0 for count in REPORTED_COUNTS if count <= len(vectors)}
        return ItemIndex.build_exact(vectors), IndexReport(FLAT, None, (), exact)
    return tune(ItemIndex.train(vectors, factory, seed), factory, vectors, queries)


def extend_item_index(
    saved: Path, factory: str, vectors: Floats, queries: Floats, seed: int
) -> tuple[ItemIndex, IndexReport]:
    """Append the last rows of a catalogue to a saved index and tune it again.

    If the catalogue has outgrown the factory of the saved index, a new index is built.

    Raises:
        RuntimeError: FAISS cannot read the file.
    """
    if factory == FLAT or factory_for(len(vectors)) != factory:
        return build_item_index(vectors, queries, seed)
    return tune(ItemIndex.load_extended(saved, vectors), factory, vectors, queries)


def factory_for(items: int) -> str:
    """Return the FAISS factory string for a catalogue size."""
    return FLAT if items <= FLAT_LIMIT else f"IVF{num_lists(items)},SQ8"


def num_lists(items: int) -> int:
    """Return the number of inverted lists: the power of two nearest to 4 sqrt(items)."""
    return int(2 ** round(np.log2(4 * np.sqrt(items))))


def tune(
    index: ItemIndex, factory: str, vectors: Floats, queries: Floats
) -> tuple[ItemIndex, IndexReport]:
    """Fit a policy for each reported count and measure its recall."""
    queries, lists = queries[:TUNING_QUERIES], index.lists_of_rows()
    policies: list[ProbingPolicy] = []
    recall = {}
    for count in REPORTED_COUNTS:
        some = queries[: max(MIN_QUERIES, len(queries) * TUNED_COUNT // count)]
        own = Benchmark(vectors, some, exact_neighbours(vectors, some, count))
        policy, recall[count] = fit_policy(index, lists, own)
        policies.append(policy)
    tuned = index.with_policies(policies)
    assert tuned.centroids is not None  # only indexes with lists are tuned
    probes = tuned.centroids.probe(queries, SearchEffort())
    tuned.handle.nprobe = max(1, round(float((probes.lists >= 0).sum(axis=1).mean())))
    return tuned, IndexReport(factory, tuned.nprobe, policies, recall)


def fit_policy(index: ItemIndex, lists: Rows, benchmark: Benchmark) -> tuple[ProbingPolicy, float]:
    """Return the policy that scans the fewest rows at the target recall, and its recall.

    The probed lists must hold the target share of the ground truth plus the loss of 8-bit rounding.
    """
    scores = benchmark.queries @ index.centroid_vectors().T
    shares, held = shares_of(index.list_sizes()), lists[benchmark.truth]
    some = slice(SLOPE_QUERIES)
    slope = min(
        SLOPES, key=lambda candidate: share_read(scores[some], held[some], shares, candidate)
    )
    sought = np.take_along_axis(densities_of(scores, shares, slope), held, axis=1)
    effort = effort_for(benchmark.truth.shape[1], 1.0, index.rows_per_list)
    share, policy, recall = TARGET_RECALL, ProbingPolicy(benchmark.depth, 0.0, slope), 0.0
    for _ in range(MAX_TRIES):
        log_threshold = max(MIN_LOG_THRESHOLD, float(np.quantile(sought, 1 - share)))
        policy = policy._replace(log_threshold=log_threshold)
        recall = benchmark.recall(index.with_policies([policy]), effort)
        if recall >= TARGET_RECALL:
            break
        share = min(1.0, share + 1.1 * (TARGET_RECALL - recall) + 1e-4)
    return policy, recall


def share_read(scores: Floats, held: Rows, shares: Floats, slope: float) -> float:
    """Return the fraction of all rows scanned at the target recall.

    Args:
        scores: [queries, lists], scores of the coarse centroids.
        held: [queries, count], the lists of the ground truth.
        shares: [lists], fraction of all rows in each list.
        slope: See `index.ann.probing`.
    """
    densities = densities_of(scores, shares, slope)
    log_threshold = np.quantile(np.take_along_axis(densities, held, axis=1), 1 - TARGET_RECALL)
    return float(((densities >= log_threshold) @ shares).mean())


def densities_of(scores: Floats, shares: Floats, slope: float) -> Floats:
    """Return the log density of results in each list, relative to the mean over all items."""
    mean = log_mean_density(scores, shares, slope)
    densities: Floats = scores * np.float32(slope) - mean[:, np.newaxis]
    return densities
