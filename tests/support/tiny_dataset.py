"""A planted dataset for tests: even users have even items only, odd users odd items only.

The features encode the parity: axis 0 is even, axis 1 is odd, the rest is noise. So the correct
candidates are known in advance.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WIDTHS = {"visual": 8, "textual": 6}
WITHOUT = {"visual": 7, "textual": 12}  # the item without the modality
FEWEST, MOST = 8, 12  # interactions per user
START, HOUR = 1_700_000_000, 3_600  # Unix seconds
PARITIES = ("even", "odd")


def write_tiny_world(folder: Path, *, users: int = 60, items: int = 40, seed: int = 0) -> None:
    """Write the dataset folder, deterministically for its arguments.

    Raises:
        ValueError: a user could need more items of a parity than there are.
    """
    if items < 2 * MOST:
        raise ValueError(f"{items} items: expected at least {2 * MOST}, {MOST} of each parity")
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(items_table(items), folder / "items.parquet")
    pq.write_table(interactions_table(users, items, rng), folder / "interactions.parquet")
    for name, width in WIDTHS.items():
        values = parity_features(items, width, rng)
        values[WITHOUT[name]] = np.nan
        np.save(folder / f"features_{name}.npy", values)


def items_table(count: int) -> pa.Table:
    """Items `item-0`, `item-1`, ... with title and parity."""
    parities = [PARITIES[row % 2] for row in range(count)]
    return pa.table(
        {
            "item_id": [f"item-{row}" for row in range(count)],
            "title": [f"the {parity} thing {row}" for row, parity in enumerate(parities)],
            "parity": parities,
        }
    )


def interactions_table(users: int, items: int, rng: np.random.Generator) -> pa.Table:
    """8 to 12 different items per user, an hour apart, oldest first, grouped by user."""
    rows = []
    for user in range(users):
        eligible = np.arange(user % 2, items, 2)
        taken = rng.choice(eligible, size=rng.integers(FEWEST, MOST + 1), replace=False)
        start = START + int(rng.integers(24)) * HOUR
        rows += [
            {"user_id": f"user-{user}", "item_id": f"item-{item}", "timestamp": start + step * HOUR}
            for step, item in enumerate(taken)
        ]
    return pa.Table.from_pylist(rows)


def parity_features(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """[count, width] float32: 1 on the axis of the parity, plus noise on all axes."""
    values = rng.normal(scale=0.2, size=(count, width))
    values[np.arange(count), np.arange(count) % 2] += 1
    return values.astype(np.float32)
