"""Train, validation and test splits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from index.arrays import Rows
from trainer.data.events import Events
from trainer.data.interactions import TEST, TRAIN, VALID, Parts, RowNumbers, sort_by_user

SplitName = Literal["auto", "column", "leave-last-two", "last-fifth", "random", "cold"]

COLD_SHARE = 0.05
REQUIRED_COLUMNS: dict[str, tuple[tuple[str, ...], str]] = {  # one of these columns; remedy
    "column": (("split",), "add the column or use the split auto"),
    "leave-last-two": (("timestamp", "seq_pos"), "add one, or use the split random"),
    "last-fifth": (
        ("timestamp",),
        "add it, or use another split (seq_pos orders only within a user)",
    ),
}


@dataclass(frozen=True)
class Split:
    """Part of each interaction, description of the split, and notes on it."""

    parts: Parts
    description: str
    notes: tuple[str, ...] = ()


def validate_split(name: SplitName, file: str, columns: Sequence[str]) -> list[str]:
    """Return the faults of an interactions file that lacks the columns of a split.

    Raises:
        ValueError: the split is unknown.
    """
    if name not in get_args(SplitName):
        raise ValueError(f"split must be one of {get_args(SplitName)}, not {name!r}")
    required, remedy = REQUIRED_COLUMNS.get(name, ((), ""))
    if not required or any(column in columns for column in required):
        return []
    return [
        f"{file}: the split {name} requires a column {' or '.join(required)}; "
        f"found: {', '.join(columns)}; {remedy}"
    ]


def split_events(events: Events, name: SplitName, rng: np.random.Generator) -> Split:
    """Assign each interaction to a part; events are sorted by user, then time.

    Raises:
        ValueError: the events lack a column that the split requires (see `validate_split`).
    """
    if name == "auto":
        name = _choose_split(events)
    split = _split_by(events, name, rng)
    if events.split_column is None or name == "column":
        return split
    return replace(split, notes=(*split.notes, "the split column is not used"))


def _split_by(events: Events, name: SplitName, rng: np.random.Generator) -> Split:
    if name == "column" and events.split_column is not None:
        return Split(events.split_column, "source split column")
    if name == "random":
        return _random(events, rng)
    if name == "cold":
        return _cold(events, rng)
    if events.timestamps is None:
        raise ValueError(f"these events cannot be split by {name}")
    if name == "last-fifth":
        return Split(
            _last_fifth(events.timestamps, events.file_rows),
            "last fifth of all interactions, by timestamp",
        )
    parts = leave_two_out(events.user_rows)
    description = f"leave last two out, by {events.order_column}"
    return Split(parts, description, _short_users(events.user_rows))


def leave_two_out(user_rows: Rows, keys: NDArray[Any] | None = None) -> Parts:
    """Hold out two interactions per user: the highest key for test, the next for validation.

    Users with fewer than three interactions stay in train.

    Args:
        user_rows: [count], ascending.
        keys: [count], such as random numbers; None: the position.

    Returns:
        [count].
    """
    last, before_last = _last_two(user_rows, keys, fewest=3)
    parts = np.full(len(user_rows), TRAIN, dtype=np.int8)
    parts[last] = TEST
    parts[before_last] = VALID
    return parts


def _choose_split(events: Events) -> SplitName:
    if events.split_column is not None:
        return "column"
    return "random" if events.timestamps is None else "leave-last-two"


def _random(events: Events, rng: np.random.Generator) -> Split:
    parts = leave_two_out(events.user_rows, rng.random(len(events.user_rows)))
    description = "leave two out per user, seeded random"
    return Split(parts, description, _short_users(events.user_rows))


def _last_fifth(timestamps: NDArray[Any], file_rows: RowNumbers) -> Parts:
    """Assign the last tenth of all interactions to test, the tenth before to validation."""
    count = len(timestamps) // 10
    parts = np.full(len(timestamps), TRAIN, dtype=np.int8)
    if count:
        oldest = np.partition(timestamps, len(timestamps) - 2 * count)[len(timestamps) - 2 * count]
        late = np.flatnonzero(timestamps >= oldest)  # ties of the oldest may be too many
        late = late[np.lexsort((file_rows[late], timestamps[late]))]
        parts[late[len(late) - 2 * count :]] = VALID
        parts[late[len(late) - count :]] = TEST
    return parts


def _cold(events: Events, rng: np.random.Generator) -> Split:
    """Hold out all interactions of 5 % of the items, which become cold items."""
    item_rows = np.unique(events.item_rows)
    cold = rng.choice(item_rows, max(1, round(len(item_rows) * COLD_SHARE)), replace=False)
    parts = np.where(np.isin(events.item_rows, cold), TEST, TRAIN).astype(np.int8)
    warm = np.flatnonzero(parts == TRAIN)
    user_rows = events.user_rows[warm]
    is_ordered = events.timestamps is not None
    last, _ = _last_two(user_rows, None if is_ordered else rng.random(len(warm)), fewest=2)
    parts[warm[last]] = VALID
    description = (
        f"cold: {len(cold):,} of {len(item_rows):,} items held out, seeded random; "
        f"valid is each user's {'last' if is_ordered else 'seeded random'} other interaction"
    )
    return Split(parts, description)


def _last_two(
    user_rows: Rows, keys: NDArray[Any] | None, fewest: int
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return the positions of the highest and the second highest key of each user.

    Users with fewer than `fewest` interactions, at least 2, are left out.
    """
    counts = np.bincount(user_rows)
    last = (np.cumsum(counts) - 1)[counts >= fewest]
    if keys is None:
        return last, last - 1
    order = sort_by_user(user_rows, keys)
    return order[last], order[last - 1]


def _short_users(user_rows: Rows) -> tuple[str, ...]:
    counts = np.bincount(user_rows)
    short_count = int(((counts > 0) & (counts < 3)).sum())
    note = f"users with fewer than 3 interactions, all in train: {short_count:,}"
    return (note,) * bool(short_count)
