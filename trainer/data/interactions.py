"""Interactions, and what derives from them: histories, evaluation cases, training counts."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.arrays import Rows

Parts = NDArray[np.int8]
RowNumbers = NDArray[np.uint32]

SORTED_AT_ONCE = 1 << 22  # interactions; bounds the memory of sorting

TRAIN, VALID, TEST = 0, 1, 2
PART_NAMES = ("train", "valid", "test")


@dataclass(frozen=True)
class Interactions:
    """Unique (user, item) interactions, sorted by user and, if known, time.

    Attributes:
        user_rows: [count], ascending.
        item_rows: [count].
        parts: [count], TRAIN, VALID or TEST.
        is_ordered: whether the order within a user is chronological.

    Raises:
        ValueError: the arrays are inconsistent.
    """

    user_rows: Rows
    item_rows: Rows
    parts: Parts
    is_ordered: bool

    def __post_init__(self) -> None:
        if not self.user_rows.shape == self.item_rows.shape == self.parts.shape:
            raise ValueError("user_rows, item_rows and parts must have the same length")
        if self.user_rows.ndim != 1:
            raise ValueError("user_rows, item_rows and parts must be one-dimensional")
        if (self.user_rows < 0).any() or (self.item_rows < 0).any():
            raise ValueError("user_rows and item_rows must be 0 or more")
        if (self.user_rows[1:] < self.user_rows[:-1]).any():
            raise ValueError("interactions must be sorted by user row")
        if ((self.parts < TRAIN) | (self.parts > TEST)).any():
            raise ValueError("parts must be TRAIN, VALID or TEST")
        if _has_repeats(self.user_rows, self.item_rows):
            raise ValueError("(user, item) pairs must be unique")


def sort_by_user(
    user_rows: Rows, keys: NDArray[Any] | None = None, at_once: int = SORTED_AT_ONCE
) -> RowNumbers:
    """Return the order by user, then key, then position; by ranges of users, to bound memory."""
    starts = _offsets(np.bincount(user_rows))
    order = np.empty(len(user_rows), dtype=np.uint32)
    for first, last in _user_ranges(starts, at_once):
        chosen = np.flatnonzero((user_rows >= first) & (user_rows < last))
        columns = (user_rows[chosen],) if keys is None else (keys[chosen], user_rows[chosen])
        order[starts[first] : starts[last]] = chosen[np.lexsort(columns)]
    return order


def mark_first_of_pairs(
    user_rows: Rows, item_rows: Rows, at_once: int = SORTED_AT_ONCE
) -> NDArray[np.bool_]:
    """Mark the first occurrence of each (user, item) pair; users must be ascending; [count]."""
    is_first = np.zeros(len(user_rows), dtype=np.bool_)
    for start, pairs in _pairs(user_rows, item_rows, at_once):
        is_first[start + np.unique(pairs, return_index=True)[1]] = True
    return is_first


def _has_repeats(user_rows: Rows, item_rows: Rows) -> bool:
    """Return whether a (user, item) pair occurs twice; users must be ascending."""
    for _, pairs in _pairs(user_rows, item_rows, SORTED_AT_ONCE):
        pairs.sort()
        if (pairs[1:] == pairs[:-1]).any():
            return True
    return False


def _pairs(
    user_rows: Rows, item_rows: Rows, at_once: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield start and numbers of the (user, item) pairs of ranges of users."""
    if not len(user_rows):
        return
    num_items = int(item_rows.max()) + 1
    starts = _offsets(np.bincount(user_rows))
    for first, last in _user_ranges(starts, at_once):
        inside = slice(starts[first], starts[last])
        yield int(starts[first]), user_rows[inside].astype(np.int64) * num_items + item_rows[inside]


def _user_ranges(starts: NDArray[np.int64], at_once: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of users of at most `at_once` interactions, or of one user."""
    first, num_users = 0, len(starts) - 1
    while first < num_users:
        limit = starts[first] + at_once
        last = max(first + 1, int(np.searchsorted(starts, limit, side="right")) - 1)
        yield first, last
        first = last


@dataclass(frozen=True)
class ItemLists:
    """Item rows per user in CSR layout.

    Attributes:
        offsets: [users + 1], start of each user's list; the last is the count.
        item_rows: [count], oldest first within a user.
    """

    offsets: NDArray[np.int64]
    item_rows: Rows

    def __post_init__(self) -> None:
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.item_rows):
            raise ValueError("offsets must start at 0 and end at the length of item_rows")
        if (np.diff(self.offsets) < 0).any():
            raise ValueError("offsets must not decrease")

    def get(self, user_row: int) -> Rows:
        """Return the items of one user, oldest first."""
        return self.item_rows[self.offsets[user_row] : self.offsets[user_row + 1]]

    def select(self, chosen: NDArray[np.integer]) -> "ItemLists":
        """Return the lists of the given users, which must be ascending."""
        lengths = np.diff(self.offsets)
        is_kept = np.zeros(len(lengths), dtype=np.bool_)
        is_kept[chosen] = True
        return ItemLists(_offsets(lengths[chosen]), self.item_rows[np.repeat(is_kept, lengths)])


@dataclass(frozen=True)
class Cases:
    """Evaluation cases: users with a held-out item and a history.

    Attributes:
        user_rows: [cases], ascending.
        histories: history of each case, which is also its seen items.
        targets: held-out items of each case.
        without_history_count: number of users omitted because they have no history.
    """

    user_rows: Rows
    histories: ItemLists
    targets: ItemLists
    without_history_count: int = 0


def build_histories(
    interactions: Interactions, parts: Collection[int], num_users: int
) -> ItemLists:
    """Build each user's history from the given parts; empty for a user without any."""
    is_in = reduce(np.logical_or, (interactions.parts == part for part in parts))
    counts = np.bincount(interactions.user_rows[is_in], minlength=num_users)
    return ItemLists(_offsets(counts), interactions.item_rows[is_in])


def build_cases(interactions: Interactions, part: int, num_users: int) -> Cases:
    """Build the cases of `part`: histories are train for VALID, train and valid for TEST.

    No target is in its own history, because (user, item) pairs are unique.

    Raises:
        ValueError: `part` is neither VALID nor TEST.
    """
    if part not in (VALID, TEST):
        raise ValueError(f"part must be VALID ({VALID}) or TEST ({TEST}), not {part}")
    known = build_histories(interactions, (TRAIN,) if part == VALID else (TRAIN, VALID), num_users)
    targets = build_histories(interactions, (part,), num_users)
    has_target, has_history = np.diff(targets.offsets) > 0, np.diff(known.offsets) > 0
    user_rows = np.flatnonzero(has_target & has_history).astype(np.int32)
    return Cases(
        user_rows=user_rows,
        histories=known.select(user_rows),
        targets=targets.select(user_rows),
        without_history_count=int((has_target & ~has_history).sum()),
    )


def sample_cases(cases: Cases, count: int, rng: np.random.Generator) -> Cases:
    """Sample at most `count` cases, keeping their order."""
    total = len(cases.user_rows)
    if total <= count:
        return cases
    chosen = np.sort(rng.choice(total, count, replace=False))
    return Cases(
        cases.user_rows[chosen], cases.histories.select(chosen), cases.targets.select(chosen)
    )


def training_counts(interactions: Interactions, num_items: int) -> NDArray[np.int64]:
    """Count each item's training positives; [items]."""
    rows = interactions.item_rows[interactions.parts == TRAIN]
    return np.bincount(rows, minlength=num_items).astype(np.int64)


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
