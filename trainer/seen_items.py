"""Seen items of each user in training, to mask false negatives."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.data.interactions import ItemLists

MAX_TABLE_CELLS = 64 * 2**20  # of the dense users x items table, one byte each


@dataclass(frozen=True)
class SeenItems:
    """Training positives of every user, on one device.

    Attributes:
        offsets: [users + 1] int64, start of each user's items.
        item_rows: [count] int64, items of all users.
        pairs: [count] int64, user * items + item, ascending.
        table: [users, items] bool, dense copy; None if too large.
        num_items: size of the catalogue.
    """

    offsets: Tensor
    item_rows: Tensor
    pairs: Tensor
    table: Tensor | None
    num_items: int

    def contains(self, user_rows: Tensor, rows: Tensor) -> Tensor:
        """Return which items each user has seen in training.

        Args:
            user_rows: [batch].
            rows: [n], shared by all users, or [batch, n].

        Returns:
            [batch, n] bool.
        """
        if rows.ndim == 1:
            return self._contains_shared(user_rows, rows)
        pairs = user_rows[:, None] * self.num_items + rows
        positions = torch.searchsorted(self.pairs, pairs).clamp(max=len(self.pairs) - 1)
        return self.pairs[positions] == pairs

    def _contains_shared(self, user_rows: Tensor, rows: Tensor) -> Tensor:
        """Look up the table; without one, scatter the users' positives into [batch, n]."""
        if self.table is not None and len(user_rows) * self.num_items <= MAX_TABLE_CELLS:
            return self.table.index_select(0, user_rows).index_select(1, rows)
        columns = torch.arange(len(rows), device=rows.device)
        column_of = torch.full((self.num_items,), -1, device=rows.device)
        column_of[rows] = columns
        owners, items = self._positives_of(user_rows)
        item_columns = column_of[items]
        is_requested = item_columns >= 0
        is_seen = torch.zeros(len(user_rows), len(rows), dtype=torch.bool, device=rows.device)
        is_seen[owners[is_requested], item_columns[is_requested]] = True
        return is_seen[:, column_of[rows]]  # duplicate rows share one column

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


def build_seen_items(
    histories: ItemLists, num_items: int, device: torch.device, max_cells: int = MAX_TABLE_CELLS
) -> SeenItems:
    """Build the seen items of every user, with a dense table up to `max_cells` cells."""
    offsets = torch.from_numpy(histories.offsets)
    item_rows = torch.from_numpy(histories.item_rows).long()
    users = torch.repeat_interleave(torch.arange(len(offsets) - 1), torch.diff(offsets))
    pairs = torch.sort(users * num_items + item_rows).values
    table = None
    if (len(offsets) - 1) * num_items <= max_cells:
        table = torch.zeros(len(offsets) - 1, num_items, dtype=torch.bool)
        table[users, item_rows] = True
        table = table.to(device)
    return SeenItems(offsets.to(device), item_rows.to(device), pairs.to(device), table, num_items)
