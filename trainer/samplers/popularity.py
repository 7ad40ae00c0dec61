"""Popular items oftener: negatives that users are likely to have seen and passed over."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from trainer.samplers.interface import Context, Negatives


class Popularity:
    """Draws `count` items a step with replacement, by share^exponent. Shared by the batch.

    Popularity is an item's share of the training *targets*: an item that never is one has
    chance 0, whatever the exponent, and is never drawn.
    log q = log(count * share^exponent / sum of share^exponent), negatives and positives alike.

    Source: PNS with the exponent 0.75 of word2vec (Mikolov et al., NeurIPS 2013).
    """

    def __init__(self, count: int, exponent: float) -> None:
        self.count, self.exponent = count, exponent
        self._made_of: Tensor | None = None
        self._table: Table | None = None

    def __call__(self, context: Context) -> Negatives:
        """Draw, encode, and mask what each user is known to like."""
        table = self._table_of(context.target_share)
        drawn = table.draw(self.count, context.rng)
        return Negatives(
            vectors=context.encode(drawn),
            log_q=torch.log(self.count * table.chance[drawn]),
            is_masked=context.is_known(drawn),
            positive_log_q=torch.log(self.count * table.chance[context.positive_rows]),
            rows=drawn,
            encoded_count=self.count,
        )

    def _table_of(self, share: Tensor) -> "Table":
        """Make the table once: a run's shares never change."""
        if self._table is None or self._made_of is not share:
            self._made_of, self._table = share, build_table(share, self.exponent)
        return self._table


@dataclass(frozen=True)
class Table:
    """A distribution over items, laid out to draw from in O(log items).

    chance      [items]  float32, sum 1
    rows        [some]   int64, the items with a chance above 0
    cumulative  [some]   float64, their chances added up; the last is 1
    """

    chance: Tensor
    rows: Tensor
    cumulative: Tensor

    def draw(self, count: int, rng: Generator) -> Tensor:
        """Draw rows with replacement; [count]."""
        points = torch.rand(count, generator=rng, dtype=torch.float64)
        places = torch.searchsorted(self.cumulative, points.to(self.rows.device))
        return self.rows[places.clamp(max=len(self.rows) - 1)]


def build_table(share: Tensor, exponent: float) -> Table:
    """Lay out share^exponent, normalised; an item without a share gets no chance."""
    rows = torch.nonzero(share).squeeze(1)
    weights = share[rows].double() ** exponent
    chances = weights / weights.sum()
    chance = torch.zeros_like(share, dtype=torch.float32)
    chance[rows] = chances.float()
    return Table(chance, rows, torch.cumsum(chances, 0))
