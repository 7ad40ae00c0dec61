"""Cost of /negatives in the service, and of Redis failures for /retrieve.

    OMP_NUM_THREADS=1 python -m benchmarks.negatives

Bundle and redis-server are those of the tests: handmade, and started on a private socket.
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
from index.cluster_map_registry import ClusterMapRegistry, ClusterPointer
from index.cluster_map_stores import open_cluster_maps
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
ROUNDS, NUM_QUERIES = 9, 1_500
SERVED_ITEMS = 50_000
WIDTH = 64

Row = tuple[str, ...]


def main() -> None:
    """Run all measurements; print two tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.negatives", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000, help="size of the map (1,000,000)")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    items = build_id_table([f"item-{row}" for row in range(args.items)])
    rows = [row for clusters in (1_000, 4_096) for row in time_sampling(items, clusters, rng)]
    print(tabulate(rows, ["10,000 negatives", "median", "runs"]))
    rows = time_retrieve(random_map(items, 1_000, rng))
    print(
        tabulate(
            rows, ["/retrieve while Redis is", "p99 before and after", "p99 meanwhile", "ratio"]
        )
    )


def random_map(items: IdTable, clusters: int, rng: np.random.Generator) -> ClusterMap:
    """Generate a map with random codes."""
    return ClusterMap(
        rng.integers(0, clusters, len(items)).astype(np.int32),
        rng.integers(0, 16, len(items)).astype(np.int32),
        rng.standard_normal((clusters, WIDTH), dtype=np.float32),
        items.hashes_by_row(),
    )


def time_sampling(items: IdTable, clusters: int, rng: np.random.Generator) -> list[Row]:
    """Time sampling alone, and the whole request: parsing, id lookup, sampling, response."""
    cluster_map = random_map(items, clusters, rng)
    cluster_map.proposal  # noqa: B018  # computed by the watcher thread, once per map
    pointer = ClusterPointer(sequence=1, version=cluster_map.version, previous=None)
    catalogue = BundleCatalogue(cluster_map.id_hashes, None, "by hand", items)
    joined = JoinedClusterMap(
        catalogue, ActiveMap(catalogue, cluster_map, cluster_map, pointer), "redis"
    )
    counts = NegativeCounts(EASY, HARD)

    def rows() -> np.ndarray:
        return rng.integers(0, len(items), POSITIVES).astype(np.int32)

    def body() -> bytes:
        request = {"positives": items.ids_of(rows()), "easy": EASY, "hard": HARD}
        return json.dumps(request).encode()

    def handle(request: bytes) -> None:
        build_negatives(joined, NegativesRequest.model_validate_json(request))

    return [
        (
            f"K1 = {clusters:,}: sampling with log counts",
            *time_calls(
                rows, lambda positives: sample_negative_rows(positives, cluster_map, counts, rng)
            ),
        ),
        (f"K1 = {clusters:,}: whole request", *time_calls(body, handle)),
    ]


def time_calls(make_input: Callable[[], object], call: Callable[..., object]) -> tuple[str, str]:
    """Format the median and all of the runs in ms, each the mean of CALLS calls."""
    runs = []
    for _ in range(RUNS):
        inputs = [make_input() for _ in range(CALLS)]
        begin = time.perf_counter()
        for value in inputs:
            call(value)
        runs.append(1_000 * (time.perf_counter() - begin) / CALLS)
    return f"{np.median(runs):.2f} ms", " ".join(f"{run:.2f}" for run in runs)


def time_retrieve(cluster_map: ClusterMap) -> list[Row]:
    """Time queries before, during and after each failure, in several rounds."""
    redis = RedisServer()
    try:
        store = open_cluster_maps(redis.start().url, Path())
        store.publish(cluster_map)
        with served(redis.url) as client:
            return [
                compare(client, "frozen", redis.freeze, redis.thaw, "unreachable"),
                compare(client, "killed", redis.kill, redis.start, "unreachable"),
                compare(client, "given a new map", *swaps(store, cluster_map), "following"),
            ]
    finally:
        redis.stop()


def swaps(
    store: ClusterMapRegistry, cluster_map: ClusterMap
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return a function that publishes the map with shifted codes, and a no-op."""
    shifts = iter(range(1, ROUNDS + 1))

    def publish() -> None:
        shift, count = next(shifts), len(cluster_map.centroids)
        shifted = (cluster_map.codes1 + shift) % count
        store.publish(
            ClusterMap(
                shifted.astype(np.int32),
                cluster_map.codes2,
                cluster_map.centroids,
                cluster_map.id_hashes,
            )
        )

    return publish, lambda: None


def compare(
    client: httpx.Client,
    name: str,
    begin: Callable[[], object],
    end: Callable[[], object],
    status: str,
) -> Row:
    """Return medians over rounds: p99 before and after, p99 during the failure, their ratio."""
    rounds = []
    for _ in range(ROUNDS):
        before = p99_ms(client)
        begin()
        if status == "unreachable":
            wait_until(lambda: status_of(client) == status)
        meanwhile = p99_ms(client)
        end()
        wait_until(lambda: status_of(client) == "following")
        undisturbed = (before + p99_ms(client)) / 2
        rounds.append((undisturbed, meanwhile, meanwhile / undisturbed))
    undisturbed, meanwhile, ratio = np.median(rounds, axis=0)
    spread = " ".join(f"{value:.2f}" for value in sorted(value for _, _, value in rounds))
    return name, f"{undisturbed:.2f} ms", f"{meanwhile:.2f} ms", f"{ratio:.2f} ({spread})"


def p99_ms(client: httpx.Client) -> float:
    """Send queries one by one; return the 99th percentile of their latency."""
    taken = []
    for row in range(NUM_QUERIES):
        query = {"history": [f"item-{row}"], "k": 100, "include": ["clusters"]}
        begin = time.perf_counter()
        client.post("/retrieve", json=query).raise_for_status()
        taken.append(1_000 * (time.perf_counter() - begin))
    return float(np.quantile(taken, 0.99))


def status_of(client: httpx.Client) -> str:
    """Return the status of the service's cluster-map watcher."""
    ready = client.get("/readyz").json()
    return str(ready.get("clusters", {}).get("status"))


@contextmanager
def served(redis_url: str) -> Iterator[httpx.Client]:
    """Serve a handmade bundle in another process, with cluster maps from this Redis."""
    with tempfile.TemporaryDirectory() as folder:
        bundles, log = Path(folder) / "bundles", Path(folder) / "log"
        publish_handmade(bundles, count=SERVED_ITEMS)
        command = [sys.executable, "-m", "service", "--bundles", str(bundles), "--port", "0"]
        with log.open("w") as stream:
            environment = os.environ | {"ESANS_REDIS_URL": redis_url}
            process = subprocess.Popen(command, env=environment, stdout=stream)
        try:
            match = wait_until(lambda: re.search(r'"url": ?"([^"]+)"', log.read_text()))
            with httpx.Client(base_url=match[1]) as client:
                wait_until(lambda: status_of(client) == "following")
                yield client
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
