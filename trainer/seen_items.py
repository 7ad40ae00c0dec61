"""Seen items of each user in training, to mask false negatives."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.data.interactions import ItemLists


@dataclass(frozen=True)
class SeenItems:
    """Training positives of every user, on one device.

    The cost of a lookup depends on the batch alone, never on the number of items or users.

    Attributes:
        offsets: [users + 1] int64, start of each user's items.
        item_rows: [count] int32, items of all users.
        num_items: size of the catalogue.
    """

    offsets: Tensor
    item_rows: Tensor
    num_items: int

    def contains(self, user_rows: Tensor, rows: Tensor) -> Tensor:
        """Return which items each user has seen in training.

        Args:
            user_rows: [batch].
            rows: [n], shared by all users, or [batch, n].

        Returns:
            [batch, n] bool.
        """
        owners, items = self._positives_of(user_rows)
        if rows.ndim == 1:
            return _contains_shared(owners, items, rows, len(user_rows))
        if not len(items):
            return torch.zeros_like(rows, dtype=torch.bool)
        pairs = torch.sort(owners * self.num_items + items).values
        batch = torch.arange(len(user_rows), device=rows.device)
        requested = batch[:, None] * self.num_items + rows
        return pairs[_positions_in(pairs, requested)] == requested

    def _positives_of(self, user_rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch position and the item row of every positive of the users."""
        starts = self.offsets[user_rows]
        lengths = self.offsets[user_rows + 1] - starts
        owners = torch.repeat_interleave(
            torch.arange(len(user_rows), device=user_rows.device), lengths
        )
        within = torch.arange(len(owners), device=user_rows.device)
        within = within - (torch.cumsum(lengths, 0) - lengths)[owners]
        return owners, self.item_rows[starts[owners] + within]


def _contains_shared(owners: Tensor, items: Tensor, rows: Tensor, batch: int) -> Tensor:
    """Scatter the users' positives into [batch, distinct rows]; duplicates share a column."""
    distinct, columns = torch.unique(rows, return_inverse=True)
    positions = _positions_in(distinct, items)
    is_requested = distinct[positions] == items
    is_seen = torch.zeros(batch, len(distinct), dtype=torch.bool, device=rows.device)
    owners, positions = owners[is_requested], positions[is_requested]
    if len(distinct) == len(rows):  # no columns to copy, which takes most of the time
        is_seen[owners, torch.argsort(columns)[positions]] = True
        return is_seen
    is_seen[owners, positions] = True
    return is_seen.index_select(1, columns)


def _positions_in(ascending: Tensor, values: Tensor) -> Tensor:
    """Return where each value is in a non-empty tensor, if anywhere."""
    return torch.searchsorted(ascending, values.to(ascending.dtype)).clamp(max=len(ascending) - 1)


def build_seen_items(histories: ItemLists, num_items: int, device: torch.device) -> SeenItems:
    """Build the seen items of every user; on the CPU they share the memory of the histories."""
    offsets, item_rows = map(torch.from_numpy, (histories.offsets, histories.item_rows))
    return SeenItems(offsets.to(device), item_rows.to(device), num_items)
