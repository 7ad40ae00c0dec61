"""Settings of the serving benchmark, and its generated shops and queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks import gaussian_shop

NUM_QUERIES = 2_000


@dataclass(frozen=True)
class Shop:
    """A generated catalogue: its bundles, and queries with one JSON body per line."""

    items: int
    bundles: Path
    bodies: Path


def make_shop(items: int, seed: int, work: Path) -> Shop:
    """Build a shop and its queries, or reuse the cached ones."""
    bundles = gaussian_shop.make_bundle(items, work, seed)
    bodies = work / f"queries-{items}-{seed}.jsonl"
    if not bodies.exists():
        shop = gaussian_shop.make_shop(items, seed)
        histories = gaussian_shop.make_histories(shop, NUM_QUERIES, seed + 1)
        bodies.write_bytes(b"\n".join(encode_query(history.tolist()) for history in histories))
    return Shop(items, bundles.resolve(), bodies.resolve())


def encode_query(history: Sequence[int]) -> bytes:
    """Encode a body: a history of 1 to 50 items of one cluster, k of 100."""
    return orjson.dumps({"history": [gaussian_shop.id_of(row) for row in history], "k": 100})


@dataclass(frozen=True)
class BenchmarkSettings:
    """Shops to measure, number and duration of rounds.

    Attributes:
        rounds: Per server (option `--turns`).
        seconds: Duration of a round.
        against: Another checkout of the project to compare with, if any.
    """

    shops: Sequence[Shop]
    rounds: int
    seconds: float
    seed: int
    work: Path
    against: Path | None
