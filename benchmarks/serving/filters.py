"""Part `filters`: filtered against unfiltered queries."""

import statistics
from pathlib import Path

import orjson
from tabulate import tabulate

from benchmarks.gaussian_shop import SHARES
from benchmarks.serving.processes import serving
from benchmarks.serving.rounds import SERVER_CORE, Round, run_round
from benchmarks.serving.settings import BenchmarkSettings


def show(settings: BenchmarkSettings) -> None:
    """Compare filtered with unfiltered queries over 16 connections."""
    rows = []
    for shop in settings.shops:
        with serving("service", shop.bundles, SERVER_CORE) as server:
            kinds = {"none": shop.bodies} | {
                name: with_fields(shop.bodies, name, {"filter": {name: ["true"]}})
                for name in SHARES
            }
            rounds: dict[str, list[Round]] = {name: [] for name in kinds}
            for _ in range(settings.rounds):
                for name, bodies in kinds.items():
                    rounds[name].append(run_round(server, bodies, 16, settings.seconds))
        plain = statistics.median(measured.cpu_us for measured in rounds["none"])
        for name, measurements in rounds.items():
            cpu = statistics.median(measured.cpu_us for measured in measurements)
            rps = statistics.median(measured.load.rps for measured in measurements)
            p99 = statistics.median(measured.load.p99_ms for measured in measurements)
            row = [f"{shop.items:,}", name, f"{rps:,.0f}", f"{p99:.1f}", f"{cpu:.0f}"]
            rows.append([*row, f"{cpu / plain:.2f}"])
    heads = ["items", "filter", "RPS", "p99 ms", "CPU us", "CPU / plain"]
    print(tabulate(rows, heads, disable_numparse=True), end="\n\n")


def with_fields(bodies: Path, name: str, fields: dict[str, object]) -> Path:
    """Write the queries with additional fields; return the file."""
    path = bodies.with_name(f"{bodies.stem}-{name}{bodies.suffix}")
    lines = bodies.read_bytes().splitlines()
    path.write_bytes(b"\n".join(orjson.dumps(orjson.loads(line) | fields) for line in lines))
    return path
