"""Plain samplers: the batch itself, all items, or independent draws of one distribution."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from trainer.samplers.base import SampledNegatives, StepContext


def sample_in_batch(context: StepContext) -> SampledNegatives:
    """Share the batch's positives; an item is drawn as often as it is a target.

    log q = log(batch * target share), at negatives and positives alike. No item is encoded.
    Every training positive of a row's user is masked, the row's own positive among them, so
    neither its twin in the batch nor another item that the user has seen counts against it.

    Source: Yi et al., RecSys 2019 (in-batch softmax with sampling-bias correction, by counts).
    """
    count = len(context.positive_rows)
    log_q = torch.log(count * context.target_share[context.positive_rows])
    return SampledNegatives(
        vectors=context.positives,
        log_q=log_q,
        is_masked=context.is_seen(context.positive_rows),
        positive_log_q=log_q,
        rows=context.positive_rows,
    )


def sample_in_batch_uncorrected(context: StepContext) -> SampledNegatives:
    """As `sample_in_batch`, without log q: popular items are pushed away too hard."""
    drawn = sample_in_batch(context)
    return replace(drawn, log_q=torch.zeros_like(drawn.log_q), positive_log_q=None)


def sample_full(context: StepContext) -> SampledNegatives:
    """Take every item once, encoded in each step; seen items are masked.

    log q is 0 at negatives and positives alike: each is there exactly once. For small
    catalogues it shows how much a sampler could still gain by estimating better.
    """
    rows = torch.arange(len(context.target_share), device=context.positive_rows.device)
    return SampledNegatives(
        vectors=context.encode(rows),
        log_q=context.queries.new_zeros(len(rows)),
        is_masked=context.is_seen(rows),
        positive_log_q=context.queries.new_zeros(len(context.positive_rows)),
        rows=rows,
        encoded_count=len(rows),
    )


@dataclass(frozen=True)
class UniformSampler:
    """Draws `count` items a step with replacement, each with equal chance.

    They are shared by the batch. log q = log(count / items), everywhere the same, so that it
    cancels in the softmax; it is given all the same, for the loss treats every sampler alike.
    """

    count: int

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Draw, encode, and mask seen items."""
        rows = context.draw_uniformly(self.count)
        expected = self.count / len(context.target_share)
        log_q = torch.full((), math.log(expected), device=rows.device)
        return SampledNegatives(
            vectors=context.encode(rows),
            log_q=log_q.expand(self.count),
            is_masked=context.is_seen(rows),
            positive_log_q=log_q.expand(len(context.positive_rows)),
            rows=rows,
            encoded_count=self.count,
        )


class PopularitySampler:
    """Draws `count` items a step with replacement, by share^exponent. Shared by the batch.

    Popularity is an item's share of the training *targets*: an item that never is one has
    chance 0, whatever the exponent, and is never drawn.
    log q = log(count * share^exponent / sum of share^exponent), negatives and positives alike.

    Source: PNS with the exponent 0.75 of word2vec (Mikolov et al., NeurIPS 2013).
    """

    def __init__(self, count: int, exponent: float) -> None:
        self.count, self.exponent = count, exponent
        self._share: Tensor | None = None
        self._table: ProposalTable | None = None

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Draw, encode, and mask seen items."""
        if self._table is None or self._share is not context.target_share:
            self._share = context.target_share  # a run's shares never change: once a run
            self._table = build_proposal_table(self._share, self.exponent)
        rows = self._table.draw(self.count, context.rng)
        chance = self._table.chance
        return SampledNegatives(
            vectors=context.encode(rows),
            log_q=torch.log(self.count * chance[rows]),
            is_masked=context.is_seen(rows),
            positive_log_q=torch.log(self.count * chance[context.positive_rows]),
            rows=rows,
            encoded_count=self.count,
        )


@dataclass(frozen=True)
class ProposalTable:
    """A proposal distribution over items, laid out to draw from in O(log items).

    chance      [items]  float32, sum 1
    rows        [some]   int64, the items with a chance above 0
    cumulative  [some]   float64, their cumulative chances; the last is 1
    """

    chance: Tensor
    rows: Tensor
    cumulative: Tensor

    def draw(self, count: int, rng: Generator) -> Tensor:
        """Draw rows with replacement; [count]."""
        points = torch.rand(count, generator=rng, dtype=torch.float64)
        places = torch.searchsorted(self.cumulative, points.to(self.rows.device))
        return self.rows[places.clamp(max=len(self.rows) - 1)]


def build_proposal_table(share: Tensor, exponent: float) -> ProposalTable:
    """Build the table of share^exponent, normalised; no share, no chance."""
    rows = torch.nonzero(share).squeeze(1)
    weights = share[rows].double() ** exponent
    chances = weights / weights.sum()
    chance = torch.zeros_like(share, dtype=torch.float32)
    chance[rows] = chances.float()
    return ProposalTable(chance, rows, torch.cumsum(chances, 0))
