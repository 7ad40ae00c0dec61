"""/retrieve against its floor, at every size and number of connections."""

from tabulate import tabulate

from benchmarks.serving.plan import Plan
from benchmarks.serving.turns import CONNECTIONS, compare, ours_and_floor, told


def show(plan: Plan) -> None:
    """Compare /retrieve with its floor at every size and number of connections."""
    rows = []
    for shop in plan.shops:
        with ours_and_floor(shop.bundles, shop.bodies) as servers:
            for connections in CONNECTIONS:
                found = compare(servers, shop.bodies, connections, plan.turns, plan.seconds)
                ours, floor = found["ours"], found["floor"]
                rows.append([f"{shop.items:,}", connections, *told(ours), *told(floor)[:2]])
                rows[-1] += [
                    f"{ours.rps / floor.rps:.2f}",
                    f"{ours.p99_ms / ours.p50_ms:.1f}",
                    f"{ours.cpu_us - floor.cpu_us:.0f}",
                ]
    heads = ["items", "connections", "RPS", "p50 ms", "p99 ms", "CPU us", "floor RPS"]
    heads += ["floor p50", "RPS / floor", "p99 / p50", "CPU us over the floor"]
    print(tabulate(rows, heads, disable_numparse=True), end="\n\n")
