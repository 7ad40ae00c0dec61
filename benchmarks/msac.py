"""Cost of building a cluster map of a million items, and of sampling negatives from it.

    OMP_NUM_THREADS=2 python -m benchmarks.msac

Three generated modalities with planted groups; memory is the peak of the whole process.
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


def generate_modalities(items: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Generate modalities that share the group of an item and nothing else."""
    groups = rng.integers(0, GROUPS, items)
    modalities = {}
    for name in MODALITIES:
        values = rng.standard_normal((items, WIDTH), dtype=np.float32)
        values += 2 * rng.standard_normal((GROUPS, WIDTH), dtype=np.float32)[groups]
        values[rng.random(items) < MISSING_SHARE] = np.nan
        modalities[name] = values
    return modalities


def time_build(items: int, rng: np.random.Generator) -> tuple[ClusterMap, list[Row]]:
    """Align and cluster; return the map and the seconds of each stage."""
    modalities, config = generate_modalities(items, rng), ClustersConfig()
    begin = time.perf_counter()
    aligned = align_modalities(modalities, config, seed=0)
    middle = time.perf_counter()
    books = fit_codebooks(aligned, config, seed=0)
    end = time.perf_counter()
    hashes = rng.integers(0, 2**63, items).astype(np.uint64)
    cluster_map = ClusterMap(books.codes1, books.codes2, books.centroids, hashes)
    rows = [
        (f"align {items:,} x {len(MODALITIES)} x {WIDTH}", f"{middle - begin:.0f} s"),
        (f"two levels of k-means, K1 = {len(books.centroids):,}", f"{end - middle:.0f} s"),
        ("peak memory", f"{peak_gb():.2f} GB"),
    ]
    return cluster_map, rows


def time_sampling(cluster_map: ClusterMap, rng: np.random.Generator) -> list[Row]:
    """Time the sampling of one step, and its shared proposal probabilities."""
    begin = time.perf_counter()
    cluster_map.layout, cluster_map.proposal  # noqa: B018  # computed once per map
    first = time.perf_counter() - begin
    label = f"K1 = {len(cluster_map.centroids):,}"
    positives = rng.integers(0, len(cluster_map), (REPEATS, BATCH)).astype(np.int32)
    sampled = rng.integers(0, len(cluster_map), (REPEATS, BATCH)).astype(np.int32)

    def sample(step: int) -> None:
        cluster_map.sample_easy(positives[step], EASY, rng)
        cluster_map.sample_hard(positives[step], HARD, rng)

    return [
        (f"{label}: tables before the first sample", f"{first:.2f} s"),
        (f"{label}: {EASY} easy + {HARD} hard for {BATCH:,}", median_ms(sample)),
        (
            f"{label}: shared proposal probabilities of {BATCH:,} rows",
            median_ms(
                lambda step: cluster_map.mean_easy_probability(positives[step], sampled[step])
            ),
        ),
    ]


def random_map(items: int, clusters: int, rng: np.random.Generator) -> ClusterMap:
    """Generate a map with random codes."""
    return ClusterMap(
        rng.integers(0, clusters, items).astype(np.int32),
        rng.integers(0, 16, items).astype(np.int32),
        rng.standard_normal((clusters, WIDTH), dtype=np.float32),
        rng.integers(0, 2**63, items).astype(np.uint64),
    )


def median_ms(call: Callable[[int], object]) -> str:
    """Format the median and the 95th percentile over REPEATS calls."""
    taken = []
    for step in range(REPEATS):
        begin = time.perf_counter()
        call(step)
        taken.append(1_000 * (time.perf_counter() - begin))
    return f"{np.median(taken):.2f} ms (p95 {np.quantile(taken, 0.95):.2f})"


def peak_gb() -> float:
    """Return the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Run all measurements; print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.msac", description=__doc__)
    parser.add_argument(
        "--items", type=int, default=1_000_000, help="size of the catalogue (1,000,000)"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads (1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    cluster_map, rows = time_build(args.items, rng)
    rows += time_sampling(cluster_map, rng)
    rows += time_sampling(random_map(args.items, 4_096, rng), rng)
    print(tabulate(rows, ["what", "cost"]))


if __name__ == "__main__":
    main()
