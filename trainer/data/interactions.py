"""Interactions, and views of them: histories, evaluation cases, training counts."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.arrays import Rows

Parts = NDArray[np.int8]

TRAIN, VALID, TEST = 0, 1, 2
PART_NAMES = ("train", "valid", "test")


@dataclass(frozen=True)
class Interactions:
    """Users' interactions with items, each user's in order of time; no pair twice.

    user_rows  [count]  ascending
    item_rows  [count]
    parts      [count]  TRAIN, VALID or TEST
    is_ordered          whether the order within a user means time

    Raises ValueError at birth if that does not hold.
    """

    user_rows: Rows
    item_rows: Rows
    parts: Parts
    is_ordered: bool

    def __post_init__(self) -> None:
        if not self.user_rows.shape == self.item_rows.shape == self.parts.shape:
            raise ValueError("user_rows, item_rows and parts must be of one length")
        if self.user_rows.ndim != 1:
            raise ValueError("user_rows, item_rows and parts must have one axis")
        if (self.user_rows < 0).any() or (self.item_rows < 0).any():
            raise ValueError("user_rows and item_rows must be 0 or more")
        if (self.user_rows[1:] < self.user_rows[:-1]).any():
            raise ValueError("interactions must be sorted by user row")
        if not np.isin(self.parts, (TRAIN, VALID, TEST)).all():
            raise ValueError("parts must be TRAIN, VALID or TEST")
        if not first_of_pairs(self.user_rows, self.item_rows).all():
            raise ValueError("a (user, item) may occur only once")


def first_of_pairs(user_rows: Rows, item_rows: Rows) -> NDArray[np.bool_]:
    """Mark the first occurrence of each (user, item).  # [count]"""
    is_first = np.zeros(len(user_rows), dtype=np.bool_)
    if len(user_rows):
        pairs = user_rows.astype(np.int64) * (int(item_rows.max()) + 1) + item_rows
        is_first[np.unique(pairs, return_index=True)[1]] = True
    return is_first


@dataclass(frozen=True)
class ItemLists:
    """Item rows per user, one list after the other (CSR).

    offsets    [users + 1]  where each user's list begins; the last is the count
    item_rows  [count]      each user's oldest first
    """

    offsets: NDArray[np.int64]
    item_rows: Rows

    def __post_init__(self) -> None:
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.item_rows):
            raise ValueError("offsets must begin with 0 and end with the count of item_rows")
        if (np.diff(self.offsets) < 0).any():
            raise ValueError("offsets must not fall")

    def of(self, user_row: int) -> Rows:
        """The items of one user, oldest first."""
        return self.item_rows[self.offsets[user_row] : self.offsets[user_row + 1]]

    def take(self, chosen: NDArray[np.integer]) -> "ItemLists":
        """Keep the lists of some users, ascending."""
        lengths = np.diff(self.offsets)
        is_kept = np.zeros(len(lengths), dtype=np.bool_)
        is_kept[chosen] = True
        return ItemLists(_offsets(lengths[chosen]), self.item_rows[np.repeat(is_kept, lengths)])


@dataclass(frozen=True)
class Cases:
    """Evaluation cases: users with a held-out item and a history.

    user_rows              [cases]  ascending
    histories              aligned to cases: what the user tower reads, and thereby seen
    targets                aligned to cases: the held-out items
    without_history_count  users with a held-out item, left out: they have no history
    """

    user_rows: Rows
    histories: ItemLists
    targets: ItemLists
    without_history_count: int = 0


def histories(interactions: Interactions, parts: Collection[int], user_count: int) -> ItemLists:
    """Gather each user's items of the given parts; a user without any has an empty list."""
    is_in = np.isin(interactions.parts, tuple(parts))
    counts = np.bincount(interactions.user_rows[is_in], minlength=user_count)
    return ItemLists(_offsets(counts), interactions.item_rows[is_in])


def cases(interactions: Interactions, part: int, user_count: int) -> Cases:
    """Gather the cases of `part`: VALID knows train, TEST knows train and valid.

    No target is in its own history, as interactions hold a (user, item) only once.
    Raises ValueError if `part` is neither VALID nor TEST.
    """
    if part not in (VALID, TEST):
        raise ValueError(f"part must be VALID ({VALID}) or TEST ({TEST}), not {part}")
    known = histories(interactions, (TRAIN,) if part == VALID else (TRAIN, VALID), user_count)
    targets = histories(interactions, (part,), user_count)
    has_target, has_history = np.diff(targets.offsets) > 0, np.diff(known.offsets) > 0
    user_rows = np.flatnonzero(has_target & has_history).astype(np.int32)
    return Cases(
        user_rows=user_rows,
        histories=known.take(user_rows),
        targets=targets.take(user_rows),
        without_history_count=int((has_target & ~has_history).sum()),
    )


def some_cases(whole: Cases, count: int, rng: np.random.Generator) -> Cases:
    """Draw `count` of the cases, in their order; all of them where there are no more."""
    total = len(whole.user_rows)
    if total <= count:
        return whole
    chosen = np.sort(rng.choice(total, count, replace=False))
    return Cases(whole.user_rows[chosen], whole.histories.take(chosen), whole.targets.take(chosen))


def training_counts(interactions: Interactions, num_items: int) -> NDArray[np.int64]:
    """Count each item's training positives; [items]."""
    rows = interactions.item_rows[interactions.parts == TRAIN]
    return np.bincount(rows, minlength=num_items).astype(np.int64)


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
