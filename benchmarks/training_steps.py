"""Measure training steps over catalogues of several sizes, with equal numbers of interactions.

Times are CPU seconds of one thread, so that other work on the machine hardly matters, and wall
time. With torchrun they are those of the first rank.

python -m benchmarks.training_steps --items 10000 100000 1000000 10000000
torchrun --nproc-per-node 2 -m benchmarks.training_steps --items 100000 --batch-size 4096
"""

import argparse
import os
import sys
import time
from contextlib import nullcontext
from itertools import islice

import numpy as np
import pyarrow as pa
import torch
from tabulate import tabulate

from index.arrays import Features
from index.cluster_map import ClusterMap
from trainer.config import RunConfig, validate_config
from trainer.data.dataset import Dataset
from trainer.data.interactions import TRAIN, VALID, Interactions
from trainer.distributed import join_ranks
from trainer.esans.residual_kmeans import default_num_clusters, default_num_codes
from trainer.sampler_factory import build_sampler
from trainer.train_loop import TrainLoop
from trainer.training_data import build_training_data

NUM_USERS, HISTORY = 50_000, 20
MODALITIES, WIDTH = ("image", "text"), 64
WARMUP_STEPS = 10
HEADERS = (
    *("items", "examples/s", "encoded rows/s"),
    *("ms/step", "optimizer ms/step", "wall ms/step"),
)


def main() -> int:
    """Measure every size; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--sampler", default="in-batch", help="esans: with a random cluster map")
    parsed = parser.parse_args()
    training = {
        "device": "cpu",
        "batch_size": parsed.batch_size,
        "sampler": {"name": parsed.sampler},
    }
    config = validate_config({"training": training}, "benchmark")
    torch.set_num_threads(config.training.threads)
    with join_ranks() if "WORLD_SIZE" in os.environ else nullcontext():
        lines = [measure(items, parsed.steps, config) for items in parsed.items]
        print(tabulate(lines, HEADERS, floatfmt=",.1f", intfmt=","))
    return 0


def measure(num_items: int, steps: int, config: RunConfig) -> list[float]:
    """Take steps over a random dataset; return a line of the table."""
    data = build_training_data(random_dataset(num_items), config)
    sampler = build_sampler(config.training.sampler, random_map(num_items))
    loop = TrainLoop(data, sampler, config)
    optimizer_s = time_calls(*loop.optimizers.values())
    encoded = count_rows(loop)
    batches = data.loader.epoch(0)
    for batch in islice(batches, WARMUP_STEPS):
        loop.take_step(batch)
    optimizer_s.clear()
    encoded.clear()
    started, wall_started = time.process_time(), time.monotonic()
    taken = 0
    for batch in islice(batches, steps):  # an epoch may have fewer
        loop.take_step(batch)
        taken += 1
    seconds, wall_s = time.process_time() - started, time.monotonic() - wall_started
    examples = taken * config.training.batch_size
    rates = [examples / seconds, sum(encoded) / seconds]
    times = [1e3 * total / taken for total in (seconds, sum(optimizer_s), wall_s)]
    return [num_items, *rates, *times]


def time_calls(*optimizers: torch.optim.Optimizer) -> list[float]:
    """Collect the seconds of each step of the optimizers."""
    seconds: list[float] = []
    started = 0.0

    def start(*_: object) -> None:
        nonlocal started
        started = time.process_time()

    for optimizer in optimizers:
        optimizer.register_step_pre_hook(start)
        optimizer.register_step_post_hook(lambda *_: seconds.append(time.process_time() - started))
    return seconds


def count_rows(loop: TrainLoop) -> list[int]:
    """Collect the number of rows of each call of the item tower."""
    counts: list[int] = []
    loop.towers.item.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    return counts


def random_map(num_items: int) -> ClusterMap:
    """Build a map with clusters and cells of the default sizes."""
    rng = np.random.default_rng(1)
    num_clusters = default_num_clusters(num_items)
    num_codes = default_num_codes(num_items, num_clusters)
    return ClusterMap(
        rng.integers(0, num_clusters, num_items).astype(np.int32),
        rng.integers(0, num_codes, num_items).astype(np.int32),
        rng.standard_normal((num_clusters, WIDTH), np.float32),
        np.arange(num_items, dtype=np.uint64),
    )


def random_dataset(num_items: int) -> Dataset:
    """Build random users over a catalogue in which a few items are popular."""
    rng = np.random.default_rng(0)
    sampled = num_items * rng.random((NUM_USERS, HISTORY)) ** 2
    users = np.repeat(np.arange(NUM_USERS, dtype=np.int32), HISTORY)
    pairs = np.unique(np.stack([users, sampled.reshape(-1).astype(np.int32)], axis=1), axis=0)
    parts = np.full(len(pairs), TRAIN, dtype=np.int8)
    parts[np.flatnonzero(np.diff(pairs[:, 0], append=NUM_USERS))] = VALID
    interactions = Interactions(pairs[:, 0].copy(), pairs[:, 1].copy(), parts, is_ordered=True)
    modalities: dict[str, Features] = {
        name: rng.standard_normal((num_items, WIDTH), np.float32).astype(np.float16)
        for name in MODALITIES
    }
    return Dataset(
        item_ids=[str(row) for row in range(num_items)],
        user_ids=[str(row) for row in range(NUM_USERS)],
        interactions=interactions,
        modalities=modalities,
        attributes=pa.table({}),
        split="random",
        notes=(),
        fingerprint="",
    )


if __name__ == "__main__":
    sys.exit(main())
