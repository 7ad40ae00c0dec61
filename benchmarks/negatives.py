"""What negatives cost inside the service, and what a Redis in trouble costs /retrieve.

    OMP_NUM_THREADS=1 python -m benchmarks.negatives

Bundle and redis-server are those of the tests: made by hand, started on a socket of their own.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from tabulate import tabulate

from index.cluster_map import ClusterMap, NegativeCounts, sample_negative_rows
from index.cluster_map_registry import ClusterMapRegistry, ClusterPointer, open_cluster_maps
from index.cluster_map_watcher import ActiveMap
from index.ids import IdTable, build_id_table
from service.cluster_watcher import BundleCatalogue, JoinedClusterMap
from service.routes.clusters import build_negatives
from service.schemas.clusters import NegativesRequest
from tests.support.redis_server import RedisServer, wait_until
from tests.support.synthetic_bundle import publish_handmade

EASY = HARD = 5
POSITIVES = 1_000  # so 10,000 negatives
RUNS, CALLS = 5, 20
TURNS, QUESTIONS = 9, 1_500
SERVED_ITEMS = 50_000
WIDTH = 64

Row = tuple[str, ...]


def main() -> None:
    """Measure all, print two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.negatives", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000, help="of the map (1,000,000)")
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    items = build_id_table([f"item-{row}" for row in range(asked.items)])
    rows = [row for clusters in (1_000, 4_096) for row in time_drawing(items, clusters, rng)]
    print(tabulate(rows, ["10,000 negatives", "median", "runs"]))
    rows = time_retrieving(by_chance(items, 1_000, rng))
    print(tabulate(rows, ["/retrieve while Redis is", "p99 else", "p99 then", "ratio"]))


def by_chance(items: IdTable, clusters: int, rng: np.random.Generator) -> ClusterMap:
    """Make a map whose codes mean nothing."""
    return ClusterMap(
        rng.integers(0, clusters, len(items)).astype(np.int32),
        rng.integers(0, 16, len(items)).astype(np.int32),
        rng.standard_normal((clusters, WIDTH), dtype=np.float32),
        items.hashes_by_row(),
    )


def time_drawing(items: IdTable, clusters: int, rng: np.random.Generator) -> list[Row]:
    """Time the draws alone, and the whole answer: body read, ids looked up, drawn, written."""
    found = by_chance(items, clusters, rng)
    found.proposal  # noqa: B018  # made by the follower's thread, once a map
    pointer = ClusterPointer(sequence=1, version=found.version, previous=None)
    catalogue = BundleCatalogue(found.id_hashes, None, "by hand", items)
    joined = JoinedClusterMap(catalogue, ActiveMap(catalogue, found, found, pointer), "redis")
    counts = NegativeCounts(EASY, HARD)

    def rows() -> np.ndarray:
        return rng.integers(0, len(items), POSITIVES).astype(np.int32)

    def body() -> bytes:
        asked = {"positives": items.ids_of(rows()), "easy": EASY, "hard": HARD}
        return json.dumps(asked).encode()

    def answer(asked: bytes) -> None:
        build_negatives(joined, NegativesRequest.model_validate_json(asked))

    return [
        (
            f"K1 = {clusters:,}: drawn, with their log counts",
            *told(rows, lambda one: sample_negative_rows(one, found, counts, rng)),
        ),
        (f"K1 = {clusters:,}: the whole answer", *told(body, answer)),
    ]


def told(ask: Callable[[], object], call: Callable[..., object]) -> tuple[str, str]:
    """Return the median of the runs, each the mean of some calls, and all of them; ms."""
    runs = []
    for _ in range(RUNS):
        questions = [ask() for _ in range(CALLS)]
        begin = time.perf_counter()
        for one in questions:
            call(one)
        runs.append(1_000 * (time.perf_counter() - begin) / CALLS)
    return f"{np.median(runs):.2f} ms", " ".join(f"{one:.2f}" for one in runs)


def time_retrieving(found: ClusterMap) -> list[Row]:
    """Time questions before and during each trouble, again and again."""
    redis = RedisServer()
    try:
        store = open_cluster_maps(redis.start().url, Path())
        store.publish(found)
        with start_service(redis.url) as client:
            return [
                compare(client, "frozen", redis.freeze, redis.thaw, "unreachable"),
                compare(client, "killed", redis.kill, redis.start, "unreachable"),
                compare(client, "given a new map", *swaps(store, found), "following"),
            ]
    finally:
        redis.stop()


def swaps(
    store: ClusterMapRegistry, found: ClusterMap
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return what publishes the map with codes moved on by one, and what does nothing."""
    turns = iter(range(1, TURNS + 1))

    def publish() -> None:
        turn, count = next(turns), len(found.centroids)
        moved = (found.codes1 + turn) % count
        store.publish(
            ClusterMap(moved.astype(np.int32), found.codes2, found.centroids, found.id_hashes)
        )

    return publish, lambda: None


def compare(
    client: httpx.Client,
    name: str,
    begin: Callable[[], object],
    end: Callable[[], object],
    status: str,
) -> Row:
    """Return the medians of the turns: p99 before and after, p99 in trouble, their ratio."""
    turns = []
    for _ in range(TURNS):
        before = p99_ms(client)
        begin()
        if status == "unreachable":
            wait_until(lambda: status_of(client) == status)
        meanwhile = p99_ms(client)
        end()
        wait_until(lambda: status_of(client) == "following")
        undisturbed = (before + p99_ms(client)) / 2
        turns.append((undisturbed, meanwhile, meanwhile / undisturbed))
    undisturbed, meanwhile, ratio = np.median(turns, axis=0)
    spread = " ".join(f"{one:.2f}" for one in sorted(one for _, _, one in turns))
    return name, f"{undisturbed:.2f} ms", f"{meanwhile:.2f} ms", f"{ratio:.2f} ({spread})"


def p99_ms(client: httpx.Client) -> float:
    """Ask one question after the other; return the 99th percentile of what they took."""
    taken = []
    for row in range(QUESTIONS):
        question = {"history": [f"item-{row}"], "k": 100, "include": ["clusters"]}
        begin = time.perf_counter()
        client.post("/retrieve", json=question).raise_for_status()
        taken.append(1_000 * (time.perf_counter() - begin))
    return float(np.quantile(taken, 0.99))


def status_of(client: httpx.Client) -> str:
    """Return how the service follows its maps."""
    told = client.get("/readyz").json()
    return str(told.get("clusters", {}).get("status"))


@contextmanager
def start_service(redis_url: str) -> Iterator[httpx.Client]:
    """Serve a bundle made by hand in a process of its own, maps from this Redis."""
    with tempfile.TemporaryDirectory() as folder:
        bundles, log = Path(folder) / "bundles", Path(folder) / "log"
        publish_handmade(bundles, count=SERVED_ITEMS)
        command = [sys.executable, "-m", "service", "--bundles", str(bundles), "--port", "0"]
        with log.open("w") as stream:
            environment = os.environ | {"ESANS_REDIS_URL": redis_url}
            process = subprocess.Popen(command, env=environment, stdout=stream)
        try:
            found = wait_until(lambda: re.search(r'"url": "([^"]+)"', log.read_text()))
            with httpx.Client(base_url=found[1]) as client:
                wait_until(lambda: status_of(client) == "following")
                yield client
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
