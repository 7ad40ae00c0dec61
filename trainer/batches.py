"""Training targets and the histories that lead to them, one batch at a time.

Ordered data: the history of a target is what came before it; a user's first item is no target.
Unordered data: the history is a seeded sample of the user's other items, drawn anew each epoch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.histories import Histories
from trainer.data.interactions import Rows


@dataclass(frozen=True)
class Batch:
    """One step's work.

    user_rows      [batch]
    positive_rows  [batch]          the targets
    history_rows   [batch, length]  newest at position 0, row 0 where masked
    mask           [batch, length]  True where there is an item
    """

    user_rows: Rows
    positive_rows: Rows
    history_rows: Rows
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Batches:
    """All targets of the training histories, in seeded order per epoch."""

    histories: Histories
    is_ordered: bool
    batch_size: int
    history_length: int
    seed: int

    def target_positions(self) -> NDArray[np.int64]:
        """Return which places of `histories.item_rows` are targets."""
        offsets = self.histories.offsets
        lengths = np.diff(offsets)
        is_target = np.repeat(lengths > 1, lengths)
        if self.is_ordered:
            is_target[offsets[:-1][lengths > 0]] = False
        return np.flatnonzero(is_target)

    def target_counts(self, item_count: int) -> NDArray[np.int64]:
        """Count how often each item is a target in one epoch; [items]."""
        targets = self.histories.item_rows[self.target_positions()]
        return np.bincount(targets, minlength=item_count).astype(np.int64)

    def batches_per_epoch(self) -> int:
        """Return how many batches an epoch has; a last one of a single target is left out."""
        count = len(self.target_positions())
        return count // self.batch_size + (count % self.batch_size > 1)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield an epoch's batches from the one numbered `first`; the same for a seed."""
        rng = np.random.default_rng([self.seed, epoch])
        histories = self.histories if self.is_ordered else _shuffled(self.histories, rng)
        order = rng.permutation(self.target_positions())
        for number in range(first, self.batches_per_epoch()):
            chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield self._batch(histories, chosen)

    def _batch(self, histories: Histories, positions: NDArray[np.int64]) -> Batch:
        users = np.searchsorted(histories.offsets, positions, side="right") - 1
        starts, ends = histories.offsets[users], histories.offsets[users + 1]
        steps = np.arange(self.history_length)
        if self.is_ordered:
            places = positions[:, None] - 1 - steps  # [batch, length]
            mask = places >= starts[:, None]
        else:
            lengths = (ends - starts)[:, None]
            places = starts[:, None] + (positions - starts)[:, None] + 1 + steps
            places = starts[:, None] + (places - starts[:, None]) % lengths
            mask = steps < lengths - 1
        length = max(1, int(mask.sum(axis=1).max()))
        places, mask = places[:, :length], mask[:, :length]
        rows = histories.item_rows[np.where(mask, places, 0)]
        return Batch(
            user_rows=users.astype(np.int32),
            positive_rows=histories.item_rows[positions],
            history_rows=np.where(mask, rows, 0).astype(np.int32),
            mask=mask,
        )


def _shuffled(histories: Histories, rng: np.random.Generator) -> Histories:
    """Return the same histories, each in an order drawn anew."""
    users = np.repeat(np.arange(len(histories.offsets) - 1), np.diff(histories.offsets))
    order = np.lexsort((rng.random(len(users)), users))
    return Histories(histories.offsets, histories.item_rows[order])
