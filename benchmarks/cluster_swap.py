"""What it costs to replace a cluster map of a million items while somebody draws from one.

    OMP_NUM_THREADS=1 python -m benchmarks.cluster_swap

Starts a redis-server of its own. The loop that may not be held up takes steps of a millisecond
or two. Its longest step is told three times: nobody follows; another process does, which takes
the processor from it but not Python's lock; a thread of its own process does. On a busy machine
a step waits for a processor whoever follows; what Linux tells of that wait is told apart.
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
from index.cluster_map_registry import ClusterMapRegistry, open_cluster_maps
from index.cluster_map_watcher import Catalogue, ClusterMapWatcher
from index.errors import StoreUnreachableError

CLUSTERS, CODES, WIDTH = 1_000, 16, 64
ROUNDS = 5
STEP, PRODUCTS = 200, 10  # a step multiplies two matrices of this width so many times
ALONE_S = 2.0
SCHEDULER = Path("/proc/thread-self/schedstat")  # Linux: ran, waited, slices

Row = tuple[str, str]
Floats = NDArray[np.float64]


class Server:
    """A redis-server on a unix socket, which keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/socket"
        kept = ["--port", "0", "--save", "", "--unixsocket", f"{folder}/socket"]
        self._command = ["redis-server", *kept, "--dir", str(folder)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        store = open_cluster_maps(self.url, Path())
        wait_until(lambda: answers(store))

    def kill(self) -> None:
        """End it at once."""
        if self._process:
            self._process.kill()
            self._process.wait()


@contextmanager
def running() -> Iterator[Server]:
    """Start a server, and end it."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = Server(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()


def answers(store: ClusterMapRegistry) -> bool:
    """Return whether Redis is there."""
    try:
        store.pointer()
    except StoreUnreachableError:
        return False
    return True


def wait_until(claim: Callable[[], object]) -> None:
    """Wait for an event, looking every other millisecond."""
    while not claim():
        time.sleep(0.002)


def imagine(items: int, seed: int, hashes: Hashes) -> ClusterMap:
    """Make a map whose codes mean nothing."""
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
    for one in maps:
        one.version  # noqa: B018  # whoever made a map has described it
    written = [seconds(partial(store.publish, one)) for one in maps]
    read = [seconds(lambda: store.load(maps[-1].version)) for _ in maps]
    return [("publish", told_ms(written)), ("read, checked", told_ms(read))]


def time_following(server: Server, maps: list[ClusterMap], known: Hashes) -> list[Row]:
    """Time from the call of publish to a follower that holds the map, prepared."""
    store = open_cluster_maps(server.url, Path())
    follower = ClusterMapWatcher(open_cluster_maps(server.url, Path()), Catalogue(known, None))
    follower.start()
    wait_until(lambda: follower.state.status == "following")
    taken = []
    for one in maps:
        begin = time.perf_counter()
        store.publish(one)
        wait_until(partial(holds, follower, one.version))
        taken.append(time.perf_counter() - begin)
    follower.stop()
    return [("from publish to held", told_ms(taken))]


def holds(follower: ClusterMapWatcher, version: str) -> bool:
    """Return whether a follower holds a map."""
    return follower.value is not None and follower.value.source.version == version


def steps_until(is_over: Callable[[], bool]) -> Floats:
    """Take steps of a millisecond or two until all is over; return how long each took.

    returns  [steps, 2]  seconds: by the clock, and without the wait for a free processor
    """
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, STEP, STEP), dtype=np.float32)
    with SCHEDULER.open("rb", buffering=0) as told:
        marks = [(time.perf_counter_ns(), waited_ns(told))]
        while not is_over():
            for _ in range(PRODUCTS):
                left @ right
            marks.append((time.perf_counter_ns(), waited_ns(told)))
    passed, waited = np.diff(np.array(marks), axis=0).T / 1e9
    return np.stack([passed, passed - waited], axis=1)


def waited_ns(told: BinaryIO) -> int:
    """Return how long this thread, ready to run, has waited for a processor so far."""
    told.seek(0)
    return int(told.read().split()[1])


def alone(_: str, __: Hashes, ___: ClusterMap) -> Floats:
    """Take steps while nobody follows."""
    end = time.perf_counter() + ALONE_S
    return steps_until(lambda: time.perf_counter() > end)


def beside_a_process(url: str, known: Hashes, one: ClusterMap) -> Floats:
    """Take steps while another process reads, joins and prepares a map."""
    begun, ended = multiprocessing.Event(), multiprocessing.Event()
    other = multiprocessing.Process(
        target=follow_once, args=(url, known, one.version, begun, ended)
    )
    other.start()
    begun.wait()
    steps = steps_until(ended.is_set)
    other.join()
    return steps


def beside_a_thread(url: str, known: Hashes, one: ClusterMap) -> Floats:
    """Take steps while a thread of this process reads, joins and prepares a map."""
    follower = ClusterMapWatcher(open_cluster_maps(url, Path()), Catalogue(known, None))
    follower.start()
    steps = steps_until(lambda: holds(follower, one.version))
    follower.stop()
    return steps


def follow_once(url: str, known: Hashes, version: str, begun: Event, ended: Event) -> None:
    """Follow until a map is held."""
    follower = ClusterMapWatcher(open_cluster_maps(url, Path()), Catalogue(known, None))
    begun.set()
    follower.start()
    wait_until(lambda: holds(follower, version))
    ended.set()
    follower.stop()


def time_pauses(server: Server, maps: list[ClusterMap], known: Hashes) -> list[Row]:
    """Tell the longest step alone, beside a process that follows, and beside a thread."""
    store = open_cluster_maps(server.url, Path())
    ways = {
        "nobody follows": alone,
        "another process follows": beside_a_process,
        "a thread follows": beside_a_thread,
    }
    steps: dict[str, list[Floats]] = {name: [] for name in ways}
    for one in maps:  # in turns, so that each meets the same machine
        store.publish(one)
        for name, way in ways.items():
            steps[name].append(way(server.url, known, one))
    typical = np.median(np.concatenate(steps["nobody follows"])[:, 1])
    rows = [("typical step", f"{1_000 * typical:.1f} ms")]
    for name, taken in steps.items():
        longest = np.array([one.max(axis=0) for one in taken])
        rows.append((f"longest step while {name}", told_ms(longest[:, 0])))
        rows.append(("... without its wait for a processor", told_ms(longest[:, 1])))
    return rows


def time_recovery(server: Server, known: Hashes) -> list[Row]:
    """Time from the return of a Redis that lost everything to what the follower makes of it."""
    store = open_cluster_maps(server.url, Path())
    follower = ClusterMapWatcher(open_cluster_maps(server.url, Path()), Catalogue(known, None))
    follower.start()
    wait_until(lambda: follower.state.status == "following")
    taken = []
    for _ in range(ROUNDS):
        server.kill()
        wait_until(lambda: follower.state.status == "unreachable")
        server.start()
        taken.append(seconds(lambda: wait_until(lambda: is_mended(store, follower))))
    follower.stop()
    return [("from Redis' return to followed and seeded", told_ms(taken))]


def is_mended(store: ClusterMapRegistry, follower: ClusterMapWatcher) -> bool:
    """Return whether all is as before: the map back in Redis, the follower content."""
    return follower.state.status == "following" and store.pointer() is not None


def told_ms(taken: list[float] | Floats) -> str:
    """Return the median, and between which it lies, in milliseconds."""
    least, middle, most = 1_000 * np.quantile(taken, [0, 0.5, 1])
    return f"{middle:,.1f} ms ({least:,.1f} to {most:,.1f})"


def main() -> None:
    """Measure all, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster_swap", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000, help="of the catalogue (1,000,000)")
    items = parser.parse_args().items
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, items).astype(np.uint64)
    known = rng.permutation(hashes)  # the same catalogue in another order
    maps = [imagine(items, seed, hashes) for seed in range(ROUNDS)]
    with running() as server:
        rows = time_store(server, maps)
        rows += time_following(server, maps, known)
        rows += time_pauses(server, maps, known)
        rows += time_recovery(server, known)
    print(tabulate(rows, ["what", f"cost, median of {ROUNDS}"]))


if __name__ == "__main__":
    main()
