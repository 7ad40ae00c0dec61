"""`python -m benchmarks.serving`: throughput, latency and CPU cost over HTTP.

    python -m benchmarks.serving                       # all parts, 10,000 to a million items
    python -m benchmarks.serving --parts floor --items 10000 --turns 1
    python -m benchmarks.serving --parts versions --items 1000000 --turns 24 --against ../old

Server and client have a core each. Servers are measured in alternating rounds; results are
medians with minimum and maximum. Bundles and the peer's graph are cached in --work.
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
from benchmarks.serving.settings import BenchmarkSettings, make_shop

PARTS: dict[str, Callable[[BenchmarkSettings], None]] = {
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
    """Run the selected parts; print a table for each."""
    parser = build_parser()
    parsed = parser.parse_args()
    if parsed.against is None and "versions" in (parsed.parts or ()):
        parser.error("--parts versions needs another checkout: set --against DIR")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    shops = [make_shop(items, parsed.seed, parsed.work) for items in parsed.items]
    settings = BenchmarkSettings(
        shops, parsed.turns, parsed.seconds, parsed.seed, parsed.work, parsed.against
    )
    for name in parsed.parts or [part for part in PARTS if part != "versions" or parsed.against]:
        PARTS[name](settings)


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="parts to measure (all)")
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
    parser.add_argument("--turns", type=int, default=5, help="rounds per server (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of a round (3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated shop (0)")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/bench"),
        help="cache of generated bundles (build/bench)",
    )
    return parser


if __name__ == "__main__":
    main()
