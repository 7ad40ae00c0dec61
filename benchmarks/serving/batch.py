"""Part `batch`: a single query against one in a batch request."""

import statistics
import time

import httpx
import orjson
from tabulate import tabulate

from benchmarks.serving.processes import serving
from benchmarks.serving.rounds import SERVER_CORE, compare
from benchmarks.serving.settings import BenchmarkSettings

BATCH = 64


def show(settings: BenchmarkSettings) -> None:
    """Compare single queries with batch requests over one connection."""
    rows = []
    for shop in settings.shops:
        queries = [orjson.loads(line) for line in shop.bodies.read_bytes().splitlines()]
        batch = orjson.dumps({"queries": queries[:BATCH]})
        with serving("service", shop.bundles, SERVER_CORE) as server:
            single = compare(
                {"service": server}, shop.bodies, 1, settings.rounds, settings.seconds
            )["service"]
            spent = []
            for _ in range(max(20, settings.rounds)):
                start = server.cpu_s(), time.perf_counter()
                httpx.post(f"{server.url}/retrieve/batch", content=batch).raise_for_status()
                end = server.cpu_s(), time.perf_counter()
                spent.append([(end[0] - start[0]) / BATCH, (end[1] - start[1]) / BATCH])
        cpu, wall = (statistics.median(values) * 1e6 for values in zip(*spent, strict=True))
        row = [f"{shop.items:,}", f"{single.cpu_us:.0f}", f"{cpu:.0f}", f"{wall:.0f}"]
        rows.append([*row, f"{single.cpu_us / cpu:.2f}"])
    heads = ["items", "single, CPU us", f"in a batch of {BATCH}, CPU us", "wall us", "ratio"]
    print(tabulate(rows, heads, disable_numparse=True), end="\n\n")
