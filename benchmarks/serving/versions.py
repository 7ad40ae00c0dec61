"""/retrieve of this tree against another checkout's, in alternating pairs of turns."""

import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from scipy.stats import t as student
from tabulate import tabulate

from benchmarks.serving.load import ask
from benchmarks.serving.plan import Plan
from benchmarks.serving.processes import Server, serving
from benchmarks.serving.turns import CLIENT_CORE, CONNECTIONS, SERVER_CORE, Turn, take_turn


def show(plan: Plan) -> None:
    """Compare RPS and CPU with the other checkout, at the largest size."""
    assert plan.against is not None  # the command line offers this part only with --against
    shop = max(plan.shops, key=lambda one: one.items)
    other = make_other_bundle(plan.against, shop.items, plan.seed, plan.work)
    rows = []
    with ExitStack() as stack:
        new = stack.enter_context(serving("service", shop.bundles, SERVER_CORE))
        old = stack.enter_context(
            serving("service", other, SERVER_CORE, checkout=plan.against.resolve())
        )
        for connections in CONNECTIONS:
            pairs = take_pairs(old, new, shop.bodies, connections, plan)
            rps = [after.load.rps / before.load.rps for before, after in pairs]
            cpu = [after.cpu_us / before.cpu_us for before, after in pairs]
            medians = [
                statistics.median(turn.load.rps for turn in turns)
                for turns in zip(*pairs, strict=True)
            ]
            rows.append([connections, *(f"{one:,.0f}" for one in medians)])
            rows[-1] += [format_interval(rps), format_interval(cpu)]
    print(f"{shop.items:,} items, {plan.turns} pairs of turns of {plan.seconds:g} s")
    heads = [
        "connections",
        "old RPS",
        "new RPS",
        "RPS new / old (95 %)",
        "CPU new / old (95 %)",
    ]
    print(tabulate(rows, heads, disable_numparse=True), end="\n\n")


def make_other_bundle(checkout: Path, items: int, seed: int, work: Path) -> Path:
    """Build the shop with the other checkout's code; return its folder of bundles."""
    folder = work.resolve() / "against"
    command = [sys.executable, "-m", "benchmarks.gaussian_shop", "--work", str(folder)]
    subprocess.run(
        [*command, "--items", str(items), "--seed", str(seed)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
        check=True,
    )
    return folder / f"gaussian-{items}-{seed}"


def take_pairs(
    old: Server, new: Server, bodies: Path, connections: int, plan: Plan
) -> list[tuple[Turn, Turn]]:
    """Take one turn of each server per pair; every second pair begins with the new one."""
    for server in (old, new):
        ask(server.url, "/retrieve", bodies, connections, 1, CLIENT_CORE)  # warm up
    pairs = []
    for pair in range(plan.turns):
        order = (old, new) if pair % 2 == 0 else (new, old)
        turns = [take_turn(server, bodies, connections, plan.seconds) for server in order]
        pairs.append((turns[0], turns[1]) if order[0] is old else (turns[1], turns[0]))
    return pairs


def format_interval(ratios: Sequence[float]) -> str:
    """Render the geometric mean of ratios and its 95 % interval (Student's t on logarithms)."""
    logs = [math.log(one) for one in ratios]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return f"{math.exp(mean):.3f}"
    half = student.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return f"{math.exp(mean):.3f} ({math.exp(mean - half):.3f} to {math.exp(mean + half):.3f})"
