"""Part `floor`: /retrieve against its floor, at every size and number of connections."""

from tabulate import tabulate

from benchmarks.serving.rounds import CONNECTIONS, compare, format_metrics, ours_and_floor
from benchmarks.serving.settings import BenchmarkSettings


def show(settings: BenchmarkSettings) -> None:
    """Compare /retrieve with its floor at every size and number of connections."""
    rows = []
    for shop in settings.shops:
        with ours_and_floor(shop.bundles, shop.bodies) as servers:
            for connections in CONNECTIONS:
                metrics = compare(
                    servers, shop.bodies, connections, settings.rounds, settings.seconds
                )
                ours, floor = metrics["ours"], metrics["floor"]
                rows.append(
                    [
                        f"{shop.items:,}",
                        connections,
                        *format_metrics(ours),
                        *format_metrics(floor)[:2],
                    ]
                )
                rows[-1] += [
                    f"{ours.rps / floor.rps:.2f}",
                    f"{ours.p99_ms / ours.p50_ms:.1f}",
                    f"{ours.cpu_us - floor.cpu_us:.0f}",
                ]
    heads = ["items", "connections", "RPS", "p50 ms", "p99 ms", "CPU us", "floor RPS"]
    heads += ["floor p50", "RPS / floor", "p99 / p50", "CPU us over the floor"]
    print(tabulate(rows, heads, disable_numparse=True), end="\n\n")
