"""Cost of cluster-map hot swaps in training: latency of a new map, and pauses of the loop.

    OMP_NUM_THREADS=1 python -m benchmarks.follow --redis redis://localhost:6379/0

A generated catalogue without content, small batches. Another process publishes, into a folder
without --redis. A pause is the longest step minus the median step, from a publish until 20 steps
after the swap; as a reference, the same over as many undisturbed steps. On a busy machine most
of a long step is the wait for a CPU; lines marked so exclude it (/proc/thread-self/schedstat).
"""

import argparse
import multiprocessing
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tabulate import tabulate

from index.cluster_map import ClusterMap
from index.cluster_map_stores import open_cluster_maps
from index.ids import hash_ids
from trainer.config import RunConfig, validate_config
from trainer.data.dataset import Dataset
from trainer.data.interactions import TRAIN, VALID, Interactions
from trainer.esans.hot_swap import HotSwapSampler
from trainer.sampler_factory import open_sampler
from trainer.samplers.base import SampledNegatives, StepContext
from trainer.train_loop import train
from trainer.training_data import build_training_data

USERS, TAKEN = 60_000, 12
WARM_UP, QUIET, AFTER = 50, 100, 20  # steps
CODES_2 = 16

CONFIG = {
    "towers": {"embedding_dim": 4, "history_length": 10},
    "training": {
        "sampler": {"name": "esans", "easy": 64, "hard": 1},
        "batch_size": 64,
        "epochs": 1,
        "device": "cpu",
    },
}


class Enough(Exception):  # noqa: N818  # not an error: ends the benchmark
    """All swaps are measured."""


@dataclass
class Swap:
    """Times of one publish and its swap, in seconds."""

    published_at: int
    step: int
    wait: float = 0.0
    taken: float = 0.0


@dataclass
class Watch:
    """Wraps the sampler of the loop, requests new maps and records times."""

    sampler: HotSwapSampler
    publisher: "Connection[Any, Any]"
    count: int
    begins: list[float] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    swaps: list[Swap] = field(default_factory=list)
    next_at: int = WARM_UP + QUIET

    def swap(self, step: int) -> dict[str, Any] | None:
        """Record the start of each step, and the first step on a new map."""
        begin = time.time()
        self.begins.append(begin)
        self.queued.append(queued_s())
        swapped = self.sampler.swap(step)
        if swapped is not None and self.swaps:
            swap = self.swaps[-1]
            swap.step, swap.taken = step, time.time() - begin
            swap.wait = begin - self.begins[swap.published_at]
            self.next_at = step + AFTER + QUIET
        elif step == self.next_at:
            self.request_map()
        return swapped

    def request_map(self) -> None:
        """Request the next map; raise Enough after the last."""
        if len(self.swaps) == self.count:
            raise Enough
        self.publisher.send("go")
        self.swaps.append(Swap(len(self.begins) - 1, 0))

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Sample negatives."""
        return self.sampler(context)

    def pauses_ms(self, *, is_net: bool, is_quiet: bool) -> list[float]:
        """Return the longest pause around each swap, or in as many undisturbed steps after it."""
        steps = 1_000 * (np.diff(self.begins) - is_net * np.diff(self.queued))
        typical = float(np.median(steps[WARM_UP:]))
        pauses = []
        for swap in self.swaps:
            first, last = swap.published_at, swap.step + AFTER
            window = steps[last : last + last - first] if is_quiet else steps[first:last]
            pauses.append(float(window.max()) - typical)
        return pauses


def queued_s() -> float:
    """Return how long this thread has waited for a CPU."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def generate_data(items: int, rng: np.random.Generator) -> Dataset:
    """Generate users with random interactions, and items without content."""
    sorted_rows = np.sort(rng.integers(0, items, (USERS, TAKEN)), axis=1)
    item_rows = (sorted_rows + np.arange(TAKEN)).astype(np.int32)  # all distinct
    parts = np.full((USERS, TAKEN), TRAIN, np.int8)
    parts[:, -1] = VALID
    users = np.repeat(np.arange(USERS, dtype=np.int32), TAKEN)
    ids = [f"item-{row}" for row in range(items + TAKEN)]
    return Dataset(
        item_ids=ids,
        user_ids=[f"user-{row}" for row in range(USERS)],
        interactions=Interactions(users, item_rows.reshape(-1), parts.reshape(-1), True),
        modalities={},
        attributes=pa.table({"item_id": ids}),
        split="generated",
        notes=(),
        fingerprint="generated",
    )


def random_maps(ids: int, clusters: int, count: int) -> list[ClusterMap]:
    """Generate maps with random codes for the items of `generate_data`."""
    rng = np.random.default_rng(0)
    hashes = hash_ids(f"item-{row}".encode() for row in range(ids))
    maps = [
        ClusterMap(
            rng.integers(0, clusters, ids).astype(np.int32),
            rng.integers(0, CODES_2, ids).astype(np.int32),
            rng.standard_normal((clusters, 64), dtype=np.float32),
            hashes,
        )
        for _ in range(count)
    ]
    for cluster_map in maps:
        cluster_map.version  # noqa: B018  # hashed before publishing
    return maps


def publish_on_request(
    requests: "Connection[Any, Any]",
    url: str | None,
    folder: Path,
    ids: int,
    clusters: int,
    count: int,
) -> None:
    """Publish a first map, then one per request; runs in the other process."""
    store = open_cluster_maps(url, folder, "esans-benchmark")
    with suppress(EOFError):  # the other process has ended
        for cluster_map in random_maps(ids, clusters, count):
            store.publish(cluster_map)
            requests.send("done")
            requests.recv()


def measure(parsed: argparse.Namespace, folder: Path, ours: "Connection[Any, Any]") -> Watch:
    """Train until every swap is recorded."""
    data, config = generate_data(parsed.items, np.random.default_rng(0)), config_of()
    store = open_cluster_maps(parsed.redis, folder, "esans-benchmark")
    ours.recv()
    with open_sampler(data, config, store) as sampler:
        assert isinstance(sampler, HotSwapSampler)
        watch = Watch(sampler, ours, parsed.swaps)
        try:
            train(build_training_data(data, config), watch, config)
        except Enough:
            return watch
    raise SystemExit("the epoch ended before all swaps: use fewer --swaps")


def config_of() -> RunConfig:
    """Return the configuration of the run."""
    return validate_config(CONFIG, "the benchmark")


def table_of(watch: Watch) -> list[tuple[str, str]]:
    """Tabulate medians over the swaps."""
    step = 1_000 * float(np.median(np.diff(watch.begins)[WARM_UP:]))
    about, quiet = "publish to 20 steps after the swap", "as many undisturbed steps"
    lines = [
        ("a step", f"{step:.1f} ms"),
        format_line("from publish to the first step on the new map", "s", waits_of(watch)),
        format_line(
            "taking over the map, in the loop", "us", [1e6 * swap.taken for swap in watch.swaps]
        ),
    ]
    for is_net, name in ((False, "longest pause"), (True, "longest pause without CPU wait")):
        for is_quiet, where in ((False, about), (True, quiet)):
            pauses = watch.pauses_ms(is_net=is_net, is_quiet=is_quiet)
            lines.append(format_line(f"{name}, {where}", "ms", pauses))
    return lines


def waits_of(watch: Watch) -> list[float]:
    """Return the seconds from each publish to its swap."""
    return [swap.wait for swap in watch.swaps]


def format_line(name: str, unit: str, values: list[float]) -> tuple[str, str]:
    """Format one line."""
    return name, f"{median(values):.1f} {unit} (worst {max(values):.1f})"


def main() -> None:
    """Run the benchmark; print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.follow", description=__doc__)
    parser.add_argument("--redis", metavar="URL", help="default: a temporary folder")
    parser.add_argument("--items", type=int, default=1_000_000, help="(1,000,000)")
    parser.add_argument("--clusters", type=int, default=1_000, help="K1 (1,000)")
    parser.add_argument("--swaps", type=int, default=5, help="(5)")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    ours, theirs = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = multiprocessing.get_context("spawn").Process(
            target=publish_on_request,
            args=(
                theirs,
                parsed.redis,
                Path(folder),
                parsed.items + TAKEN,
                parsed.clusters,
                parsed.swaps + 1,
            ),
        )
        process.start()
        watch = measure(parsed, Path(folder), ours)
        ours.send("end")
        process.join()
    print(tabulate(table_of(watch), ["what", "cost"]))


if __name__ == "__main__":
    main()
