"""What making a cluster map of a million items costs, and drawing negatives from one.

    OMP_NUM_THREADS=2 python -m benchmarks.msac

Three generated modalities with planted groups; the memory told is the whole process's peak.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from tabulate import tabulate

from index.arrays import Floats
from index.cluster_map import ClusterMap
from trainer.config import ClustersConfig
from trainer.esans.alignment import align_modalities
from trainer.esans.residual_kmeans import fit_codebooks

MODALITIES = ("visual", "textual", "behavioural")
WIDTH, GROUPS = 64, 2_000
MISSING_SHARE = 0.05
BATCH, EASY, HARD = 1_024, 2, 4
REPEATS = 500

Row = tuple[str, str]


def imagine(items: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Generate modalities that agree on the group of an item and on nothing else."""
    groups = rng.integers(0, GROUPS, items)
    modalities = {}
    for name in MODALITIES:
        values = rng.standard_normal((items, WIDTH), dtype=np.float32)
        values += 2 * rng.standard_normal((GROUPS, WIDTH), dtype=np.float32)[groups]
        values[rng.random(items) < MISSING_SHARE] = np.nan
        modalities[name] = values
    return modalities


def time_making(items: int, rng: np.random.Generator) -> tuple[ClusterMap, list[Row]]:
    """Align and cluster; return the map and the seconds of each stage."""
    modalities, config = imagine(items, rng), ClustersConfig()
    begin = time.perf_counter()
    aligned = align_modalities(modalities, config, seed=0)
    middle = time.perf_counter()
    books = fit_codebooks(aligned, config, seed=0)
    end = time.perf_counter()
    hashes = rng.integers(0, 2**63, items).astype(np.uint64)
    found = ClusterMap(books.codes1, books.codes2, books.centroids, hashes)
    rows = [
        (f"align {items:,} x {len(MODALITIES)} x {WIDTH}", f"{middle - begin:.0f} s"),
        (f"two levels of k-means, K1 = {len(books.centroids):,}", f"{end - middle:.0f} s"),
        ("peak memory", f"{peak_gb():.2f} GB"),
    ]
    return found, rows


def time_drawing(found: ClusterMap, rng: np.random.Generator) -> list[Row]:
    """Time the draws of one step, and the chances that go with them."""
    begin = time.perf_counter()
    found.layout, found.proposal  # noqa: B018  # made at the first draw, once a map
    first = time.perf_counter() - begin
    told = f"K1 = {len(found.centroids):,}"
    positives = rng.integers(0, len(found), (REPEATS, BATCH)).astype(np.int32)
    drawn = rng.integers(0, len(found), (REPEATS, BATCH)).astype(np.int32)

    def draw(step: int) -> None:
        found.sample_easy(positives[step], EASY, rng)
        found.sample_hard(positives[step], HARD, rng)

    return [
        (f"{told}: tables at the first draw", f"{first:.2f} s"),
        (f"{told}: {EASY} easy + {HARD} hard for {BATCH:,}", median_ms(draw)),
        (
            f"{told}: shared chances of {BATCH:,} rows",
            median_ms(lambda step: found.mean_easy_probability(positives[step], drawn[step])),
        ),
    ]


def by_chance(items: int, clusters: int, rng: np.random.Generator) -> ClusterMap:
    """Make a map whose codes mean nothing, to draw from."""
    return ClusterMap(
        rng.integers(0, clusters, items).astype(np.int32),
        rng.integers(0, 16, items).astype(np.int32),
        rng.standard_normal((clusters, WIDTH), dtype=np.float32),
        rng.integers(0, 2**63, items).astype(np.uint64),
    )


def median_ms(call: Callable[[int], object]) -> str:
    """Return the median and the 95th percentile over many calls."""
    taken = []
    for step in range(REPEATS):
        begin = time.perf_counter()
        call(step)
        taken.append(1_000 * (time.perf_counter() - begin))
    return f"{np.median(taken):.2f} ms (p95 {np.quantile(taken, 0.95):.2f})"


def peak_gb() -> float:
    """Return the most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure all, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.msac", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000, help="of the catalogue (1,000,000)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    rng = np.random.default_rng(0)
    found, rows = time_making(asked.items, rng)
    rows += time_drawing(found, rng)
    rows += time_drawing(by_chance(asked.items, 4_096, rng), rng)
    print(tabulate(rows, ["what", "cost"]))


if __name__ == "__main__":
    main()
