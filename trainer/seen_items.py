"""The items that each user has seen in training: false negatives of theirs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.data.interactions import ItemLists

MAX_TABLE_CELLS = 64 * 2**20  # of a table of users and items: a byte each


@dataclass(frozen=True)
class SeenItems:
    """All training positives of every user, on one device.

    offsets     [users + 1]     int64
    item_rows   [count]         int64, each user's
    pairs       [count]         int64, user * items + item, ascending
    table       [users, items]  bool, the same once more; None where it would be large
    num_items  of the catalogue
    """

    offsets: Tensor
    item_rows: Tensor
    pairs: Tensor
    table: Tensor | None
    num_items: int

    def of(self, user_rows: Tensor, rows: Tensor) -> Tensor:
        """Return which rows each user has seen in training.

        user_rows  [batch]
        rows       [n], shared by all, or [batch, n]
        returns    [batch, n]  bool
        """
        if rows.ndim == 1:
            return self._of_shared(user_rows, rows)
        wanted = user_rows[:, None] * self.num_items + rows
        places = torch.searchsorted(self.pairs, wanted).clamp(max=len(self.pairs) - 1)
        return self.pairs[places] == wanted

    def _of_shared(self, user_rows: Tensor, rows: Tensor) -> Tensor:
        """Read the table; without one, walk the users' few positives, not [batch, n] pairs."""
        if self.table is not None and len(user_rows) * self.num_items <= MAX_TABLE_CELLS:
            return self.table.index_select(0, user_rows).index_select(1, rows)
        columns = torch.arange(len(rows), device=rows.device)
        column_of = torch.full((self.num_items,), -1, device=rows.device)
        column_of[rows] = columns
        owners, items = self._positives_of(user_rows)
        found = column_of[items]
        is_found = found >= 0
        marked = torch.zeros(len(user_rows), len(rows), dtype=torch.bool, device=rows.device)
        marked[owners[is_found], found[is_found]] = True
        return marked[:, column_of[rows]]  # equal rows share one marked column

    def _positives_of(self, user_rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch position and the item of every positive of the batch's users."""
        starts = self.offsets[user_rows]
        lengths = self.offsets[user_rows + 1] - starts
        owners = torch.repeat_interleave(
            torch.arange(len(user_rows), device=user_rows.device), lengths
        )
        within = torch.arange(len(owners), device=user_rows.device)
        within = within - (torch.cumsum(lengths, 0) - lengths)[owners]
        return owners, self.item_rows[starts[owners] + within]


def build_seen_items(
    histories: ItemLists,
    num_items: int,
    device: torch.device,
    max_cells: int = MAX_TABLE_CELLS,
) -> SeenItems:
    """Gather the training positives of every user; in a table, too, up to so many cells."""
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
