"""What is measured: which shops, how often, how long."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks import gaussian_shop

QUESTIONS = 2_000


@dataclass(frozen=True)
class Shop:
    """A generated catalogue: its bundles, and questions, one JSON body a line."""

    items: int
    bundles: Path
    bodies: Path


def make_shop(items: int, seed: int, work: Path) -> Shop:
    """Make a shop and its questions, or take those made before."""
    bundles = gaussian_shop.make_bundle(items, work, seed)
    bodies = work / f"questions-{items}-{seed}.jsonl"
    if not bodies.exists():
        made = gaussian_shop.make_shop(items, seed)
        histories = gaussian_shop.make_histories(made, QUESTIONS, seed + 1)
        bodies.write_bytes(b"\n".join(question(own.tolist()) for own in histories))
    return Shop(items, bundles.resolve(), bodies.resolve())


def question(history: Sequence[int]) -> bytes:
    """Write one body: a history of 1 to 50 items of one cluster, 100 candidates wanted."""
    return orjson.dumps({"history": [gaussian_shop.id_of(row) for row in history], "k": 100})


@dataclass(frozen=True)
class Plan:
    """What to measure, how many turns of how many seconds.

    against  another checkout of the project to compare with, if any
    """

    shops: Sequence[Shop]
    turns: int
    seconds: float
    seed: int
    work: Path
    against: Path | None
