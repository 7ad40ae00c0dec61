"""Where the time of a question goes: the floor, and the stages that the service counts."""

import re

import httpx
from tabulate import tabulate

from benchmarks.serving.plan import Plan
from benchmarks.serving.processes import Server
from benchmarks.serving.turns import ours_and_floor, take_turn

CONNECTIONS = 16
STAGES = {
    "encode": "ids to rows, history encoded",
    "search": "index, exact scores, ids",
    "write": "the answer as JSON",
}
LINE = re.compile(r'^esans_stage_duration_seconds_sum\{stage="(\w+)"\} (\S+)$', re.MULTILINE)


def show(plan: Plan) -> None:
    """Ask over 16 connections; tell CPU time a question, by what it is spent on."""
    rows = []
    for shop in plan.shops:
        with ours_and_floor(shop.bundles, shop.bodies) as servers:
            take_turn(servers["ours"], shop.bodies, CONNECTIONS, 1)  # warm
            floor = take_turn(servers["floor"], shop.bodies, CONNECTIONS, plan.seconds)
            before = stage_sums(servers["ours"])
            ours = take_turn(servers["ours"], shop.bodies, CONNECTIONS, plan.seconds)
            after = stage_sums(servers["ours"])
        spent = {
            what: (after[stage] - before[stage]) / ours.load.requests * 1e6
            for stage, what in STAGES.items()
        }
        parts = {"the floor": floor.cpu_us, **spent}
        parts["the rest: body checked, queue, metrics"] = ours.cpu_us - sum(parts.values())
        for what, cost in parts.items():
            rows.append([f"{shop.items:,}", what, f"{cost:.0f}", f"{cost / ours.cpu_us:.0%}"])
        rows.append([f"{shop.items:,}", "all", f"{ours.cpu_us:.0f}", "100%"])
    print(tabulate(rows, ["items", "what", "us", "share"], disable_numparse=True), end="\n\n")


def stage_sums(server: Server) -> dict[str, float]:
    """Return the seconds that each stage took so far."""
    told = httpx.get(f"{server.url}/metrics").raise_for_status().text
    return {stage: float(seconds) for stage, seconds in LINE.findall(told)}
