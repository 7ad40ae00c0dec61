"""Views of the interactions: the history of every user, and what evaluation asks."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.interactions import TEST, TRAIN, VALID, Interactions, Rows


@dataclass(frozen=True)
class Histories:
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


@dataclass(frozen=True)
class Cases:
    """What evaluation asks: users with a held-out item and a history to ask with.

    user_rows              [cases]  ascending
    histories              aligned to cases: known at asking time, and thereby seen
    targets                aligned to cases: the held-out items
    without_history_count  users with a held-out item, left out for want of a history
    """

    user_rows: Rows
    histories: Histories
    targets: Histories
    without_history_count: int = 0


def histories(interactions: Interactions, parts: Collection[int], user_count: int) -> Histories:
    """Gather each user's items of the given parts; a user without any has an empty list."""
    return _of_users(interactions, parts, np.arange(user_count, dtype=np.int32), user_count)


def cases(interactions: Interactions, part: int, user_count: int) -> Cases:
    """Gather who is asked about in `part`: VALID knows train, TEST knows train and valid.

    No target is in its own history, as interactions hold a (user, item) only once.
    Raises ValueError if `part` is neither VALID nor TEST.
    """
    if part not in (VALID, TEST):
        raise ValueError(f"part must be VALID ({VALID}) or TEST ({TEST}), not {part}")
    known = (TRAIN,) if part == VALID else (TRAIN, VALID)
    has_target = _counts(interactions, (part,), user_count) > 0
    has_history = _counts(interactions, known, user_count) > 0
    user_rows = np.flatnonzero(has_target & has_history).astype(np.int32)
    return Cases(
        user_rows=user_rows,
        histories=_of_users(interactions, known, user_rows, user_count),
        targets=_of_users(interactions, (part,), user_rows, user_count),
        without_history_count=int((has_target & ~has_history).sum()),
    )


def some_cases(whole: Cases, count: int, rng: np.random.Generator) -> Cases:
    """Draw `count` of the cases, in their order; all of them where there are no more."""
    total = len(whole.user_rows)
    if total <= count:
        return whole
    chosen = np.sort(rng.choice(total, count, replace=False))
    return Cases(
        user_rows=whole.user_rows[chosen],
        histories=_chosen(whole.histories, chosen),
        targets=_chosen(whole.targets, chosen),
    )


def _chosen(whole: Histories, chosen: NDArray[np.int64]) -> Histories:
    """Keep the lists of some users, ascending."""
    lengths = np.diff(whole.offsets)
    is_kept = np.zeros(len(lengths), dtype=np.bool_)
    is_kept[chosen] = True
    offsets = np.concatenate([[0], np.cumsum(lengths[chosen])]).astype(np.int64)
    return Histories(offsets, whole.item_rows[np.repeat(is_kept, lengths)])


def _counts(
    interactions: Interactions, parts: Collection[int], user_count: int
) -> NDArray[np.int64]:
    """Count each user's interactions of some parts.  # [users]"""
    is_in = np.isin(interactions.parts, tuple(parts))
    return np.bincount(interactions.user_rows[is_in], minlength=user_count).astype(np.int64)


def _of_users(
    interactions: Interactions, parts: Collection[int], user_rows: Rows, user_count: int
) -> Histories:
    """Gather the items of some users (ascending) in some parts."""
    is_wanted = np.zeros(user_count, dtype=np.bool_)
    is_wanted[user_rows] = True
    is_in = np.isin(interactions.parts, tuple(parts)) & is_wanted[interactions.user_rows]
    counts = _counts(interactions, parts, user_count)[user_rows]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Histories(offsets, interactions.item_rows[is_in])
