"""Time and anonymous memory of reading interactions from Parquet parts, first and from the cache.

    python -m benchmarks.reading --interactions 50000000 --users 5000000 --work /tmp/reading

Each read runs in a process of its own; memory is the highest `Anonymous` of its smaps_rollup.
"""

import argparse
import multiprocessing
import re
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tabulate import tabulate

from trainer.data.dataset import load_dataset
from trainer.data.event_cache import EventCache

ITEMS = 1_000_000
ROWS_PER_PART = 1_000_000
SAMPLE_S = 0.1


def texts(prefix: str, numbers: np.ndarray) -> pa.Array:
    """Return ids such as `user-7`."""
    return pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "-")


def write_parts(folder: Path, interactions: int, users: int) -> None:
    """Write a dataset of random users and skewed items, in the order of time."""
    parts = folder / "interactions.parquet"
    parts.mkdir(parents=True)
    pq.write_table(pa.table({"item_id": texts("item", np.arange(ITEMS))}), folder / "items.parquet")
    rng = np.random.default_rng(0)
    for number, first in enumerate(range(0, interactions, ROWS_PER_PART)):
        count = min(ROWS_PER_PART, interactions - first)
        columns = {
            "user_id": texts("user", rng.integers(0, users, count)),
            "item_id": texts("item", (ITEMS * rng.random(count) ** 3).astype(np.int64)),
            "timestamp": pa.array(1_700_000_000 + np.arange(first, first + count)),
        }
        pq.write_table(pa.table(columns), parts / f"part-{number:05}.parquet")


def anonymous_gb() -> float:
    """Return the anonymous memory of this process."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"^Anonymous:\s+(\d+) kB", rollup, re.MULTILINE)[1]) / 2**20


def measure(folder: Path, cache: Path) -> tuple[float, float, float, str]:
    """Read the dataset; return seconds, seconds of CPU, peak of anonymous GB and fingerprint."""
    peak, is_done = anonymous_gb(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_done.wait(SAMPLE_S):
            peak = max(peak, anonymous_gb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    data = load_dataset(folder, cache=EventCache(cache))
    seconds = time.perf_counter() - begin
    cpu = time.process_time()
    is_done.set()
    watcher.join()
    return seconds, cpu, peak, data.fingerprint


def main() -> None:
    """Write the parts, read them twice and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--work", type=Path, required=True, help="folder to create")
    args = parser.parse_args()
    folder, cache = args.work / "data", args.work / "cache"
    if not folder.exists():
        write_parts(folder, args.interactions, args.users)
    rows, fingerprints = [], set()
    for name in ("first read", "second read"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, cpu, peak, fingerprint = pool.apply(measure, (folder, cache))
        rows.append((name, f"{seconds:.1f} s", f"{cpu:.1f} s", f"{peak:.2f} GB"))
        fingerprints.add(fingerprint)
    assert len(fingerprints) == 1, "the cache changed the dataset"
    print(tabulate(rows, headers=["", "time", "CPU time", "peak"], tablefmt="github"))


if __name__ == "__main__":
    main()
