"""Filtered questions and plain ones, over HTTP."""

import statistics
from pathlib import Path

import orjson
from tabulate import tabulate

from benchmarks.gaussian_shop import SHARES
from benchmarks.serving.plan import Plan
from benchmarks.serving.processes import serving
from benchmarks.serving.turns import SERVER_CORE, Turn, take_turn


def show(plan: Plan) -> None:
    """Compare filtered questions with plain ones over HTTP, 16 connections."""
    rows = []
    for shop in plan.shops:
        with serving("service", shop.bundles, SERVER_CORE) as server:
            kinds = {"none": shop.bodies} | {
                name: with_member(shop.bodies, name, {"filter": {name: ["true"]}})
                for name in SHARES
            }
            turns: dict[str, list[Turn]] = {name: [] for name in kinds}
            for _ in range(plan.turns):
                for name, bodies in kinds.items():
                    turns[name].append(take_turn(server, bodies, 16, plan.seconds))
        plain = statistics.median(one.cpu_us for one in turns["none"])
        for name, own in turns.items():
            cpu = statistics.median(one.cpu_us for one in own)
            rps = statistics.median(one.load.rps for one in own)
            p99 = statistics.median(one.load.p99_ms for one in own)
            row = [f"{shop.items:,}", name, f"{rps:,.0f}", f"{p99:.1f}", f"{cpu:.0f}"]
            rows.append([*row, f"{cpu / plain:.2f}"])
    heads = ["items", "filter", "RPS", "p99 ms", "CPU us", "CPU / plain"]
    print(tabulate(rows, heads, disable_numparse=True), end="\n\n")


def with_member(bodies: Path, name: str, member: dict[str, object]) -> Path:
    """Write the same questions with one more member; return the file."""
    path = bodies.with_name(f"{bodies.stem}-{name}{bodies.suffix}")
    lines = bodies.read_bytes().splitlines()
    path.write_bytes(b"\n".join(orjson.dumps(orjson.loads(one) | member) for one in lines))
    return path
