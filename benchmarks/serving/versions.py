"""Part `versions`: /retrieve of this checkout against another, in alternating pairs of rounds."""

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

from benchmarks.serving.load import send_load
from benchmarks.serving.processes import Server, serving
from benchmarks.serving.rounds import CLIENT_CORE, CONNECTIONS, SERVER_CORE, Round, run_round
from benchmarks.serving.settings import BenchmarkSettings


def show(settings: BenchmarkSettings) -> None:
    """Compare RPS and CPU with the other checkout, at the largest size."""
    assert settings.against is not None  # the command line offers this part only with --against
    shop = max(settings.shops, key=lambda shop: shop.items)
    other = build_other_bundle(settings.against, shop.items, settings.seed, settings.work)
    rows = []
    with ExitStack() as stack:
        new = stack.enter_context(serving("service", shop.bundles, SERVER_CORE))
        old = stack.enter_context(
            serving("service", other, SERVER_CORE, checkout=settings.against.resolve())
        )
        for connections in CONNECTIONS:
            pairs = run_pairs(old, new, shop.bodies, connections, settings)
            rps = [after.load.rps / before.load.rps for before, after in pairs]
            cpu = [after.cpu_us / before.cpu_us for before, after in pairs]
            medians = [
                statistics.median(measured.load.rps for measured in rounds)
                for rounds in zip(*pairs, strict=True)
            ]
            rows.append([connections, *(f"{median:,.0f}" for median in medians)])
            rows[-1] += [format_interval(rps), format_interval(cpu)]
    print(f"{shop.items:,} items, {settings.rounds} pairs of rounds of {settings.seconds:g} s")
    heads = ["connections", "old RPS", "new RPS", "RPS new / old (95 %)", "CPU new / old (95 %)"]
    print(tabulate(rows, heads, disable_numparse=True), end="\n\n")


def build_other_bundle(checkout: Path, items: int, seed: int, work: Path) -> Path:
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


def run_pairs(
    old: Server, new: Server, bodies: Path, connections: int, settings: BenchmarkSettings
) -> list[tuple[Round, Round]]:
    """Run one round per server and pair; every second pair starts with the new version."""
    for server in (old, new):
        send_load(server.url, "/retrieve", bodies, connections, 1, CLIENT_CORE)  # warm up
    pairs = []
    for pair in range(settings.rounds):
        order = (old, new) if pair % 2 == 0 else (new, old)
        rounds = [run_round(server, bodies, connections, settings.seconds) for server in order]
        pairs.append((rounds[0], rounds[1]) if order[0] is old else (rounds[1], rounds[0]))
    return pairs


def format_interval(ratios: Sequence[float]) -> str:
    """Render the geometric mean of ratios and its 95 % interval (Student's t on logarithms)."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return f"{math.exp(mean):.3f}"
    half = student.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return f"{math.exp(mean):.3f} ({math.exp(mean - half):.3f} to {math.exp(mean + half):.3f})"
