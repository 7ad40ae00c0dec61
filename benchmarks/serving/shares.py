"""Part `shares`: CPU time of a request by stage."""

import re

import httpx
from tabulate import tabulate

from benchmarks.serving.processes import Server
from benchmarks.serving.rounds import ours_and_floor, run_round
from benchmarks.serving.settings import BenchmarkSettings

CONNECTIONS = 16
STAGES = {
    "encode": "ids to rows, history encoded",
    "search": "index, exact scores, ids",
    "write": "response as JSON",
}
LINE = re.compile(r'^esans_stage_duration_seconds_sum\{stage="(\w+)"\} (\S+)$', re.MULTILINE)


def show(settings: BenchmarkSettings) -> None:
    """Measure the CPU time per request by stage, over 16 connections."""
    rows = []
    for shop in settings.shops:
        with ours_and_floor(shop.bundles, shop.bodies) as servers:
            run_round(servers["ours"], shop.bodies, CONNECTIONS, 1)  # warm up
            floor = run_round(servers["floor"], shop.bodies, CONNECTIONS, settings.seconds)
            before = stage_sums(servers["ours"])
            ours = run_round(servers["ours"], shop.bodies, CONNECTIONS, settings.seconds)
            after = stage_sums(servers["ours"])
        spent = {
            label: (after[stage] - before[stage]) / ours.load.requests * 1e6
            for stage, label in STAGES.items()
        }
        parts = {"floor": floor.cpu_us, **spent}
        parts["rest: validation, queue, metrics"] = ours.cpu_us - sum(parts.values())
        for label, cost in parts.items():
            rows.append([f"{shop.items:,}", label, f"{cost:.0f}", f"{cost / ours.cpu_us:.0%}"])
        rows.append([f"{shop.items:,}", "all", f"{ours.cpu_us:.0f}", "100%"])
    print(tabulate(rows, ["items", "stage", "us", "share"], disable_numparse=True), end="\n\n")


def stage_sums(server: Server) -> dict[str, float]:
    """Return the total seconds of each stage so far."""
    text = httpx.get(f"{server.url}/metrics").raise_for_status().text
    return {stage: float(seconds) for stage, seconds in LINE.findall(text)}
