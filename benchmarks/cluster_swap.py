"""Cost of replacing a cluster map of a million items while another is in use.

    OMP_NUM_THREADS=1 python -m benchmarks.cluster_swap

Starts its own redis-server. A loop of short steps must not be delayed. Its longest step is
measured without a watcher, beside a watcher in another process (competes for the CPU, not for
the GIL), and beside a watcher thread. On a busy machine every step waits for a CPU; that wait,
as counted by Linux, is reported separately.
"""

import argparse
import multiprocessing
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from index.arrays import Hashes
from index.cluster_map import ClusterMap
from index.cluster_map_registry import ClusterMapRegistry
from index.cluster_map_stores import open_cluster_maps
from index.cluster_map_watcher import Catalogue, ClusterMapWatcher
from index.errors import StoreUnreachableError

CLUSTERS, CODES, WIDTH = 1_000, 16, 64
ROUNDS = 5
STEP, PRODUCTS = 200, 10  # matrix width, and products per step
ALONE_S = 2.0
SCHEDULER = Path("/proc/thread-self/schedstat")  # Linux: ran, waited, slices

Row = tuple[str, str]
Floats = NDArray[np.float64]


class Server:
    """A redis-server on a unix socket, without persistence."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/socket"
        options = ["--port", "0", "--save", "", "--unixsocket", f"{folder}/socket"]
        self._command = ["redis-server", *options, "--dir", str(folder)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it responds."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        store = open_cluster_maps(self.url, Path())
        wait_until(lambda: is_reachable(store))

    def kill(self) -> None:
        """Kill the server."""
        if self._process:
            self._process.kill()
            self._process.wait()


@contextmanager
def running() -> Iterator[Server]:
    """Run a server within the context."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = Server(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()


def is_reachable(store: ClusterMapRegistry) -> bool:
    """Return whether Redis is reachable."""
    try:
        store.pointer()
    except StoreUnreachableError:
        return False
    return True


def wait_until(condition: Callable[[], object]) -> None:
    """Poll a condition every two milliseconds until it holds."""
    while not condition():
        time.sleep(0.002)


def random_map(items: int, seed: int, hashes: Hashes) -> ClusterMap:
    """Generate a map with random codes."""
    rng = np.random.default_rng(seed)
    return ClusterMap(
        rng.integers(0, CLUSTERS, items).astype(np.int32),
        rng.integers(0, CODES, items).astype(np.int32),
        rng.standard_normal((CLUSTERS, WIDTH), dtype=np.float32),
        hashes,
    )


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def time_store(server: Server, maps: list[ClusterMap]) -> list[Row]:
    """Time writing and reading whole maps."""
    store = open_cluster_maps(server.url, Path())
    for cluster_map in maps:
        cluster_map.version  # noqa: B018  # computed before publishing
    publish_s = [seconds(partial(store.publish, cluster_map)) for cluster_map in maps]
    read_s = [seconds(lambda: store.load(maps[-1].version)) for _ in maps]
    return [("publish", format_ms(publish_s)), ("read and validate", format_ms(read_s))]


def time_following(server: Server, maps: list[ClusterMap], known: Hashes) -> list[Row]:
    """Time from publish until a watcher holds the prepared map."""
    store = open_cluster_maps(server.url, Path())
    watcher = ClusterMapWatcher(open_cluster_maps(server.url, Path()), Catalogue(known, None))
    watcher.start()
    wait_until(lambda: watcher.state.status == "following")
    taken = []
    for cluster_map in maps:
        begin = time.perf_counter()
        store.publish(cluster_map)
        wait_until(partial(holds, watcher, cluster_map.version))
        taken.append(time.perf_counter() - begin)
    watcher.stop()
    return [("from publish to held", format_ms(taken))]


def holds(watcher: ClusterMapWatcher, version: str) -> bool:
    """Return whether a watcher holds a map."""
    return watcher.value is not None and watcher.value.source.version == version


def steps_until(is_over: Callable[[], bool]) -> Floats:
    """Run steps of a millisecond or two until `is_over`; return the time of each.

    Returns:
        [steps, 2], seconds: wall time, and without the wait for a CPU.
    """
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, STEP, STEP), dtype=np.float32)
    with SCHEDULER.open("rb", buffering=0) as scheduler:
        marks = [(time.perf_counter_ns(), waited_ns(scheduler))]
        while not is_over():
            for _ in range(PRODUCTS):
                left @ right
            marks.append((time.perf_counter_ns(), waited_ns(scheduler)))
    passed, waited = np.diff(np.array(marks), axis=0).T / 1e9
    return np.stack([passed, passed - waited], axis=1)


def waited_ns(scheduler: BinaryIO) -> int:
    """Return how long this thread has waited for a CPU while runnable."""
    scheduler.seek(0)
    return int(scheduler.read().split()[1])


def alone(_: str, __: Hashes, ___: ClusterMap) -> Floats:
    """Run steps without a watcher."""
    end = time.perf_counter() + ALONE_S
    return steps_until(lambda: time.perf_counter() > end)


def beside_a_process(url: str, known: Hashes, cluster_map: ClusterMap) -> Floats:
    """Run steps while another process reads, joins and prepares a map."""
    started, finished = multiprocessing.Event(), multiprocessing.Event()
    other = multiprocessing.Process(
        target=follow_once, args=(url, known, cluster_map.version, started, finished)
    )
    other.start()
    started.wait()
    steps = steps_until(finished.is_set)
    other.join()
    return steps


def beside_a_thread(url: str, known: Hashes, cluster_map: ClusterMap) -> Floats:
    """Run steps while a thread of this process reads, joins and prepares a map."""
    watcher = ClusterMapWatcher(open_cluster_maps(url, Path()), Catalogue(known, None))
    watcher.start()
    steps = steps_until(lambda: holds(watcher, cluster_map.version))
    watcher.stop()
    return steps


def follow_once(url: str, known: Hashes, version: str, started: Event, finished: Event) -> None:
    """Run a watcher until it holds a map."""
    watcher = ClusterMapWatcher(open_cluster_maps(url, Path()), Catalogue(known, None))
    started.set()
    watcher.start()
    wait_until(lambda: holds(watcher, version))
    finished.set()
    watcher.stop()


def time_pauses(server: Server, maps: list[ClusterMap], known: Hashes) -> list[Row]:
    """Measure the longest step alone, beside a watcher process and beside a watcher thread."""
    store = open_cluster_maps(server.url, Path())
    scenarios = {
        "no watcher": alone,
        "a watcher process": beside_a_process,
        "a watcher thread": beside_a_thread,
    }
    steps: dict[str, list[Floats]] = {name: [] for name in scenarios}
    for cluster_map in maps:  # alternating, so that background load affects all alike
        store.publish(cluster_map)
        for name, run_scenario in scenarios.items():
            steps[name].append(run_scenario(server.url, known, cluster_map))
    typical = np.median(np.concatenate(steps["no watcher"])[:, 1])
    rows = [("typical step", f"{1_000 * typical:.1f} ms")]
    for name, taken in steps.items():
        longest = np.array([durations.max(axis=0) for durations in taken])
        rows.append((f"longest step with {name}", format_ms(longest[:, 0])))
        rows.append(("... without the wait for a CPU", format_ms(longest[:, 1])))
    return rows


def time_recovery(server: Server, known: Hashes) -> list[Row]:
    """Time from the restart of an empty Redis until it is repopulated and followed."""
    store = open_cluster_maps(server.url, Path())
    watcher = ClusterMapWatcher(open_cluster_maps(server.url, Path()), Catalogue(known, None))
    watcher.start()
    wait_until(lambda: watcher.state.status == "following")
    taken = []
    for _ in range(ROUNDS):
        server.kill()
        wait_until(lambda: watcher.state.status == "unreachable")
        server.start()
        taken.append(seconds(lambda: wait_until(lambda: has_recovered(store, watcher))))
    watcher.stop()
    return [("from restart of Redis to repopulated and followed", format_ms(taken))]


def has_recovered(store: ClusterMapRegistry, watcher: ClusterMapWatcher) -> bool:
    """Return whether the map is back in Redis and the watcher follows it."""
    return watcher.state.status == "following" and store.pointer() is not None


def format_ms(taken: list[float] | Floats) -> str:
    """Format median, minimum and maximum in milliseconds."""
    low, middle, high = 1_000 * np.quantile(taken, [0, 0.5, 1])
    return f"{middle:,.1f} ms ({low:,.1f} to {high:,.1f})"


def main() -> None:
    """Run all measurements; print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster_swap", description=__doc__)
    parser.add_argument(
        "--items", type=int, default=1_000_000, help="size of the catalogue (1,000,000)"
    )
    items = parser.parse_args().items
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, items).astype(np.uint64)
    known = rng.permutation(hashes)  # the same catalogue in another order
    maps = [random_map(items, seed, hashes) for seed in range(ROUNDS)]
    with running() as server:
        rows = time_store(server, maps)
        rows += time_following(server, maps, known)
        rows += time_pauses(server, maps, known)
        rows += time_recovery(server, known)
    print(tabulate(rows, ["what", f"cost, median of {ROUNDS}"]))


if __name__ == "__main__":
    main()
