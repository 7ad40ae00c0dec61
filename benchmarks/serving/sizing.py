"""Part `sizing`: disk, memory, opening time and RPS per core by catalogue size."""

import statistics

from tabulate import tabulate

from benchmarks.serving.memory import drop_page_cache, loading_s, memory_of
from benchmarks.serving.processes import serving
from benchmarks.serving.rounds import SERVER_CORE, run_round
from benchmarks.serving.settings import BenchmarkSettings, Shop
from index.bundle.registry import BundleRegistry

OPENINGS = 5


def show(settings: BenchmarkSettings) -> None:
    """Measure disk, memory of one and two processes, opening time and RPS per core."""
    rows = []
    for shop in settings.shops:
        folder = BundleRegistry(shop.bundles).current()
        disk = sum(path.stat().st_size for path in folder.iterdir())
        index = (folder / "items.faiss").stat().st_size
        warm = [opening(shop, is_cold=False) for _ in range(OPENINGS)]
        cold = [opening(shop, is_cold=True) for _ in range(OPENINGS)]
        with serving("service", shop.bundles, SERVER_CORE) as first:
            measured = run_round(first, shop.bodies, 16, settings.seconds)
            alone = memory_of(first, shop.bundles)
            with serving("service", shop.bundles, SERVER_CORE) as second:
                run_round(second, shop.bodies, 16, settings.seconds)
                both = memory_of(first, shop.bundles), memory_of(second, shop.bundles)
        rows.append(
            [
                *(f"{shop.items:,}", mega(disk), f"{index / shop.items:.0f}"),
                *(mega(alone.own + alone.shared), mega(both[1].own), mega(both[1].copied)),
                *(f"{statistics.median(warm):.2f}", f"{statistics.median(cold):.2f}"),
                f"{measured.load.rps:,.0f}",
            ]
        )
    heads = ["items", "bundle MB", "index B/item", "one process MB", "a second adds MB"]
    heads += ["of it copied files MB", "opening s warm", "cold", "RPS at 16 on one core"]
    print(tabulate(rows, heads, disable_numparse=True), end="\n\n")


def opening(shop: Shop, *, is_cold: bool) -> float:
    """Return the seconds a new service process takes to open the bundle."""
    if is_cold:
        drop_page_cache(shop.bundles)
    with serving("service", shop.bundles, SERVER_CORE) as server:
        return loading_s(server)


def mega(size: int) -> str:
    """Format bytes as MB."""
    return f"{size / 1e6:,.0f}"
