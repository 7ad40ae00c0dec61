"""Who is train, valid and test: one small function per way of splitting."""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from index.arrays import Rows
from index.ingest.tables import Source
from trainer.data.events import Events
from trainer.data.interactions import TEST, TRAIN, VALID, Parts

SplitName = Literal["auto", "column", "leave-last-two", "last-fifth", "random", "cold"]

COLD_SHARE = 0.05
NEEDED: dict[str, tuple[tuple[str, ...], str]] = {  # one of which columns, and the remedy
    "column": (("split",), "add the column or leave the split to auto"),
    "leave-last-two": (("timestamp", "seq_pos"), "add one, or choose the split random"),
    "last-fifth": (
        ("timestamp",),
        "add it, or choose another split (seq_pos orders only within a user)",
    ),
}


@dataclass(frozen=True)
class Split:
    """The part of each interaction, what was done in words, and what is worth knowing."""

    parts: Parts
    words: str
    notes: tuple[str, ...] = ()


def unfit(name: SplitName, source: Source) -> list[str]:
    """Say what the interactions file lacks to be split so.

    Raises ValueError if no split has that name.
    """
    if name not in get_args(SplitName):
        raise ValueError(f"split must be one of {get_args(SplitName)}, not {name!r}")
    needed, remedy = NEEDED.get(name, ((), ""))
    columns = source.table.column_names
    if not needed or any(column in columns for column in needed):
        return []
    return [
        f"{source.name}: the split {name} needs a column {' or '.join(needed)}; "
        f"found: {', '.join(columns)}; {remedy}"
    ]


def split_events(events: Events, name: SplitName, rng: np.random.Generator) -> Split:
    """Give each interaction its part; events are sorted by user, then time.

    Raises ValueError if the events lack what the split needs (see `unfit`).
    """
    if name == "auto":
        name = _chosen(events)
    done = _split_by(events, name, rng)
    if events.given_parts is None or name == "column":
        return done
    return replace(done, notes=(*done.notes, "the split column is not used"))


def _split_by(events: Events, name: SplitName, rng: np.random.Generator) -> Split:
    if name == "column" and events.given_parts is not None:
        return Split(events.given_parts, "source split column")
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
    parts = leave_two_out(events.user_rows, np.arange(len(events.user_rows)))
    return Split(parts, f"leave last two out, by {events.clock}", _short_users(events.user_rows))


def leave_two_out(user_rows: Rows, keys: NDArray[Any]) -> Parts:
    """Make each user's highest key test and the next valid; under 3, all stay train.

    user_rows  [count]  who
    keys       [count]  what goes last, time or chance
    returns    [count]
    """
    from_end = _from_end(user_rows, keys)
    has_enough = np.bincount(user_rows)[user_rows] >= 3
    parts = np.full(len(user_rows), TRAIN, dtype=np.int8)
    parts[has_enough & (from_end == 0)] = TEST
    parts[has_enough & (from_end == 1)] = VALID
    return parts


def _chosen(events: Events) -> SplitName:
    if events.given_parts is not None:
        return "column"
    return "random" if events.timestamps is None else "leave-last-two"


def _random(events: Events, rng: np.random.Generator) -> Split:
    parts = leave_two_out(events.user_rows, rng.random(len(events.user_rows)))
    words = "two of each user held out, seeded random"
    return Split(parts, words, _short_users(events.user_rows))


def _last_fifth(timestamps: NDArray[Any], file_rows: NDArray[np.int64]) -> Parts:
    """Make the last tenth of all interactions test, the tenth before valid."""
    order = np.lexsort((file_rows, timestamps))
    count = len(order) // 10
    parts = np.full(len(order), TRAIN, dtype=np.int8)
    parts[order[len(order) - 2 * count :]] = VALID
    parts[order[len(order) - count :]] = TEST
    return parts


def _cold(events: Events, rng: np.random.Generator) -> Split:
    """Hold a twentieth of the items that somebody took out of training altogether."""
    taken = np.unique(events.item_rows)
    cold = rng.choice(taken, max(1, round(len(taken) * COLD_SHARE)), replace=False)
    parts = np.where(np.isin(events.item_rows, cold), TEST, TRAIN).astype(np.int8)
    warm = np.flatnonzero(parts == TRAIN)
    user_rows = events.user_rows[warm]
    is_ordered = events.timestamps is not None
    keys = np.arange(len(warm)) if is_ordered else rng.random(len(warm))
    has_enough = np.bincount(user_rows)[user_rows] >= 2
    parts[warm[has_enough & (_from_end(user_rows, keys) == 0)]] = VALID
    words = (
        f"cold: {len(cold):,} of {len(taken):,} items held out, seeded random; "
        f"valid is each user's {'last' if is_ordered else 'seeded random'} other interaction"
    )
    return Split(parts, words)


def _from_end(user_rows: Rows, keys: NDArray[Any]) -> NDArray[np.int64]:
    """Count the interactions of the same user that have a higher key.  # [count]"""
    order = np.lexsort((keys, user_rows))
    ends = np.cumsum(np.bincount(user_rows))  # [users]
    from_end = np.empty(len(user_rows), dtype=np.int64)
    from_end[order] = ends[user_rows[order]] - 1 - np.arange(len(user_rows))
    return from_end


def _short_users(user_rows: Rows) -> tuple[str, ...]:
    counts = np.bincount(user_rows)
    short_count = int(((counts > 0) & (counts < 3)).sum())
    return (f"users with under 3 interactions, all in train: {short_count:,}",) * bool(short_count)
