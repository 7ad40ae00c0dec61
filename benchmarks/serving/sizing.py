"""Disk, memory, opening and answers per core, by size: what to give a replica."""

import statistics

from tabulate import tabulate

from benchmarks.serving.memory import drop_from_memory, loading_s, memory_of
from benchmarks.serving.plan import Plan, Shop
from benchmarks.serving.processes import serving
from benchmarks.serving.turns import SERVER_CORE, take_turn
from index.bundle.registry import BundleRegistry

OPENINGS = 5


def show(plan: Plan) -> None:
    """Tell disk, memory of one and of two processes, opening, answers per core."""
    rows = []
    for shop in plan.shops:
        disk = sum(one.stat().st_size for one in BundleRegistry(shop.bundles).current().iterdir())
        index = (BundleRegistry(shop.bundles).current() / "items.faiss").stat().st_size
        warm = [opening(shop, is_cold=False) for _ in range(OPENINGS)]
        cold = [opening(shop, is_cold=True) for _ in range(OPENINGS)]
        with serving("service", shop.bundles, SERVER_CORE) as one:
            turn = take_turn(one, shop.bodies, 16, plan.seconds)
            alone = memory_of(one, shop.bundles)
            with serving("service", shop.bundles, SERVER_CORE) as two:
                take_turn(two, shop.bodies, 16, plan.seconds)
                both = memory_of(one, shop.bundles), memory_of(two, shop.bundles)
        rows.append(
            [
                *(f"{shop.items:,}", mega(disk), f"{index / shop.items:.0f}"),
                *(mega(alone.own + alone.shared), mega(both[1].own), mega(both[1].copied)),
                *(f"{statistics.median(warm):.2f}", f"{statistics.median(cold):.2f}"),
                f"{turn.load.rps:,.0f}",
            ]
        )
    heads = ["items", "bundle MB", "index B/item", "one process MB", "a second adds MB"]
    heads += ["of it copied files MB", "opening s warm", "cold", "RPS at 16 on one core"]
    print(tabulate(rows, heads, disable_numparse=True), end="\n\n")


def opening(shop: Shop, *, is_cold: bool) -> float:
    """Return how long a fresh service takes to open the bundle."""
    if is_cold:
        drop_from_memory(shop.bundles)
    with serving("service", shop.bundles, SERVER_CORE) as server:
        return loading_s(server)


def mega(size: int) -> str:
    """Return bytes as MB."""
    return f"{size / 1e6:,.0f}"
