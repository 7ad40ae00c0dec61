"""A question asked alone, and one of a batch."""

import statistics
import time

import httpx
import orjson
from tabulate import tabulate

from benchmarks.serving.plan import Plan
from benchmarks.serving.processes import serving
from benchmarks.serving.turns import SERVER_CORE, compare

BATCH = 64


def show(plan: Plan) -> None:
    """Compare a question asked alone with one of a batch, one connection."""
    rows = []
    for shop in plan.shops:
        questions = [orjson.loads(line) for line in shop.bodies.read_bytes().splitlines()]
        batch = orjson.dumps({"queries": questions[:BATCH]})
        with serving("service", shop.bundles, SERVER_CORE) as server:
            alone = compare({"it": server}, shop.bodies, 1, plan.turns, plan.seconds)["it"]
            spent = []
            for _ in range(max(20, plan.turns)):
                began = server.cpu_s(), time.perf_counter()
                httpx.post(f"{server.url}/retrieve/batch", content=batch).raise_for_status()
                ends = server.cpu_s(), time.perf_counter()
                spent.append([(ends[0] - began[0]) / BATCH, (ends[1] - began[1]) / BATCH])
        cpu, wall = (statistics.median(one) * 1e6 for one in zip(*spent, strict=True))
        row = [f"{shop.items:,}", f"{alone.cpu_us:.0f}", f"{cpu:.0f}", f"{wall:.0f}"]
        rows.append([*row, f"{alone.cpu_us / cpu:.2f}"])
    heads = ["items", "alone, CPU us", f"one of {BATCH}, CPU us", "wall us", "gain"]
    print(tabulate(rows, heads, disable_numparse=True), end="\n\n")
