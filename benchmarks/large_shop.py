"""Generate a large shop, as a dataset folder that the trainer reads.

    python -m benchmarks.large_shop --items 1000000 --interactions 5000000 --out DIR --seed 1

Two-level semantics (clusters of cells), popularity with a heavy tail, tastes and popularity that
change over time, near-duplicates, two modalities, cold items; see large_shop_items.py and
large_shop_visits.py. The interactions are in order of time, in parts of a million rows. Beside
the dataset, the folder has `truth.npz`, which the trainer ignores, and `shop.json` with facts
and digests. Equal arguments give equal files, whatever the size of the parts.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.large_shop_items import (
    NOISE,
    WIDTH,
    PlantedItems,
    duplicate_sizes,
    generate_features,
    plant_items,
)
from benchmarks.large_shop_visits import (
    BLOCK_USERS,
    INTERACTIONS_PER_USER,
    build_demand,
    sample_lengths,
    sample_visits,
)
from index.arrays import Rows
from index.fsio import sha256_of, write_json
from trainer.metrics import popularity_buckets

PART_ROWS = 1_000_000
MIN_ITEMS = 1_000
DEPARTMENTS = 20  # whole clusters
OPENING, SECONDS = 1_735_689_600, 365 * 86_400  # the log begins on 2025-01-01
TRAIN_SHARE = 0.8  # of the interactions, by time: the split last-fifth
BUCKETS = ("cold", "tail", "torso", "head")

Facts = dict[str, object]


@dataclass(frozen=True)
class Log:
    """Interactions in order of time.

    Attributes:
        users: [interactions].
        items: [interactions], rows of the catalogue.
        seconds: [interactions], since the log begins.
        tastes: [users, tastes], cells; -1 where there is none.
    """

    users: Rows
    items: Rows
    seconds: Rows
    tastes: Rows


def make_shop(
    folder: Path, items: int, interactions: int, seed: int, part_rows: int = PART_ROWS
) -> Facts:
    """Generate a shop into an empty folder; return the facts that shop.json holds.

    Args:
        part_rows: Rows of a part of the interactions; what fits into one is a single file.

    Raises:
        FileExistsError: The folder holds files.
        ValueError: There are too few items or interactions.
    """
    if items < MIN_ITEMS or interactions < INTERACTIONS_PER_USER:
        raise ValueError(f"expected at least {MIN_ITEMS} items and {INTERACTIONS_PER_USER} events")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder}: holds files; expected an empty folder; give another one")
    planted = plant_items(items, seed)
    log = generate_log(planted, interactions, seed)
    write_interactions(folder, log, part_rows)
    write_items(folder, planted)
    write_features(folder, planted, seed)
    train = log.items[: int(TRAIN_SHARE * len(log.items))]
    train_counts = np.bincount(train, minlength=items)
    write_truth(folder, planted, log, train_counts)
    facts = describe(planted, log, train_counts)
    facts |= {"seed": seed, "sha256": digests_of(folder)}
    write_json(folder / "shop.json", facts)
    return facts


def generate_log(planted: PlantedItems, interactions: int, seed: int) -> Log:
    """Generate the interactions by blocks of users, and sort them by time."""
    demand, lengths = build_demand(planted), sample_lengths(interactions, seed)
    blocks = []
    for first in range(0, len(lengths), BLOCK_USERS):
        rng = np.random.default_rng([seed, len(planted.cell), interactions, first])
        visits = sample_visits(planted, demand, lengths[first : first + BLOCK_USERS], rng)
        seconds = (visits.times.astype(np.float64) * SECONDS).astype(np.int32)
        users = (visits.users + first).astype(np.int32)
        blocks.append((users, planted.rows[visits.items], seconds, visits.tastes))
    users, rows, seconds, tastes = map(np.concatenate, zip(*blocks, strict=True))
    order = np.argsort(seconds, kind="stable")
    return Log(users[order], rows[order], seconds[order], tastes)


def write_interactions(folder: Path, log: Log, part_rows: int) -> None:
    """Write interactions.parquet: a file, or a folder of parts if there are many rows."""
    count = len(log.users)
    whole = folder / "interactions.parquet"
    if count > part_rows:
        whole.mkdir()
    for part, first in enumerate(range(0, count, part_rows)):
        rows = slice(first, first + part_rows)
        table = pa.table(
            {
                "user_id": _ids("u", log.users[rows]),
                "item_id": _ids("i", log.items[rows]),
                "timestamp": log.seconds[rows].astype(np.int64) + OPENING,
            }
        )
        path = whole / f"part-{part:04d}.parquet" if count > part_rows else whole
        pq.write_table(table, path, row_group_size=PART_ROWS)


def write_items(folder: Path, planted: PlantedItems) -> None:
    """Write items.parquet: ids and departments, which are whole clusters."""
    department = _by_row(planted, planted.cluster[planted.cell] % DEPARTMENTS)
    names = pa.array([f"department {number}" for number in range(DEPARTMENTS)])
    schema = pa.schema({"item_id": pa.string(), "department": pa.string()})
    with pq.ParquetWriter(folder / "items.parquet", schema) as writer:
        for first in range(0, len(department), PART_ROWS):
            chosen = department[first : first + PART_ROWS]
            ids = _ids("i", np.arange(first, first + len(chosen)))
            writer.write_table(pa.table([ids, names.take(pa.array(chosen))], schema=schema))


def write_features(folder: Path, planted: PlantedItems, seed: int) -> None:
    """Write the modalities through memory maps, as float16."""
    shape = (len(planted.cell), WIDTH)
    maps = {
        name: np.lib.format.open_memmap(
            folder / f"features_{name}.npy", mode="w+", dtype=np.float16, shape=shape
        )
        for name in NOISE
    }
    for chosen, name, values in generate_features(planted, seed):
        maps[name][planted.rows[chosen]] = values


def write_truth(
    folder: Path, planted: PlantedItems, log: Log, train_counts: NDArray[np.int64]
) -> None:
    """Write truth.npz: what was planted, by row of the catalogue, and the users' tastes."""
    masks = popularity_buckets(train_counts)
    bucket = np.select([masks[name] for name in BUCKETS], range(len(BUCKETS))).astype(np.int8)
    by_item: dict[str, NDArray[Any]] = {
        "cluster": planted.cluster[planted.cell],
        "cell": planted.cell,
        "group": planted.group,
        "group_size": duplicate_sizes(planted),
        "style": planted.style,
        "birth": planted.birth,
        "weight": planted.weight,
    }
    arrays: dict[str, Any] = {name: _by_row(planted, values) for name, values in by_item.items()}
    np.savez(folder / "truth.npz", **arrays, bucket=bucket, user_tastes=log.tastes)


def describe(planted: PlantedItems, log: Log, train_counts: NDArray[np.int64]) -> Facts:
    """Compute the facts of a shop."""
    counts = np.sort(np.bincount(log.items, minlength=len(planted.cell)))
    items, total = len(counts), int(counts.sum())
    gini = 2 * float(counts @ np.arange(1, items + 1)) / (items * total) - (items + 1) / items
    return {
        "items": items,
        "users": len(log.tastes),
        "interactions": total,
        "clusters": len(planted.cluster_starts) - 1,
        "cells": len(planted.cluster),
        "share_of_items_with_event": float((counts > 0).mean()),
        "gini": gini,
        "share_of_events_of_top_percent": float(counts[-max(items // 100, 1) :].sum() / total),
        "share_of_items_with_duplicates": float((duplicate_sizes(planted) > 1).mean()),
        "cold_items": int((train_counts == 0).sum()),
        "items_without_event": int((counts == 0).sum()),
    }


def digests_of(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of a folder, by its path in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


def _by_row(planted: PlantedItems, values: NDArray[Any]) -> NDArray[Any]:
    """Bring values from planted order into catalogue order."""
    moved = np.empty_like(values)
    moved[planted.rows] = values
    return moved


def _ids(prefix: str, numbers: NDArray[np.integer]) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "")


def main() -> None:
    """Generate a shop and print its facts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--interactions", type=int, default=5_000_000, help="approximately")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty folder")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    try:
        facts = make_shop(args.out, args.items, args.interactions, args.seed)
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
