"""`python -m benchmarks.serving`: what answering over HTTP costs.

    python -m benchmarks.serving                       # all parts, 10,000 to a million items
    python -m benchmarks.serving --parts floor --items 10000 --turns 1
    python -m benchmarks.serving --parts versions --items 1000000 --turns 24 --against ../old

Server and client have a core each. All are asked in turn, several times over; medians are told,
with the least and the most. Bundles and the peer's graph are made once and kept in --work.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.serving import (
    against_floor,
    against_peer,
    batch,
    filters,
    shares,
    sizing,
    swaps,
    versions,
)
from benchmarks.serving.plan import Plan, make_shop

PARTS: dict[str, Callable[[Plan], None]] = {
    "floor": against_floor.show,
    "shares": shares.show,
    "peer": against_peer.show,
    "filters": filters.show,
    "batch": batch.show,
    "sizing": sizing.show,
    "swaps": swaps.show,
    "versions": versions.show,
}


def main() -> None:
    """Measure what was asked for, print a table each."""
    parser = build_parser()
    parsed = parser.parse_args()
    if parsed.against is None and "versions" in (parsed.parts or ()):
        parser.error("--parts versions: give the other checkout with --against DIR")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    shops = [make_shop(items, parsed.seed, parsed.work) for items in parsed.items]
    plan = Plan(shops, parsed.turns, parsed.seconds, parsed.seed, parsed.work, parsed.against)
    for name in parsed.parts or [one for one in PARTS if one != "versions" or parsed.against]:
        PARTS[name](plan)


def build_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="what to measure (all)")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="DIR",
        help="another checkout of the project, for the part `versions`",
    )
    parser.add_argument(
        "--items",
        type=int,
        nargs="+",
        default=[10_000, 100_000, 1_000_000],
        help="sizes of the catalogue (10,000 100,000 1,000,000)",
    )
    parser.add_argument("--turns", type=int, default=5, help="of each server (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a turn (3)")
    parser.add_argument("--seed", type=int, default=0, help="of the generated shop (0)")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/bench"),
        help="where generated bundles are kept (build/bench)",
    )
    return parser


if __name__ == "__main__":
    main()
