"""Who took what, and for which part of the work: to train, to validate, to test."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int32]
Parts = NDArray[np.int8]

TRAIN, VALID, TEST = 0, 1, 2
PART_NAMES = ("train", "valid", "test")


@dataclass(frozen=True)
class Interactions:
    """Who took what, each user's in order of time; a (user, item) at most once.

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
