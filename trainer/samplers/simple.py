"""Samplers with a single source: the batch, the whole catalogue, or one proposal distribution."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from trainer.samplers.base import SampledNegatives, StepContext


def sample_in_batch(context: StepContext) -> SampledNegatives:
    """Use the positives of the batch as shared negatives, with logQ correction.

    log q = log(batch * target_share) for negatives and positives: log p_j of Yi et al. plus
    log(batch), a constant. Encodes no further item. Masks every training positive of the row's
    user, and with it the row's own positive and copies of it in the batch.

    Source: Yi et al., RecSys 2019 (sampling-bias correction s(x, y_j) - log p_j). We take p_j
    from exact target counts instead of their streaming estimate.
    """
    batch = len(context.positive_rows)
    log_q = torch.log(batch * context.target_share[context.positive_rows])
    return SampledNegatives(
        vectors=context.positives,
        log_q=log_q,
        is_masked=context.is_seen(context.positive_rows),
        positive_log_q=log_q,
        rows=context.positive_rows,
    )


def sample_in_batch_uncorrected(context: StepContext) -> SampledNegatives:
    """Like `sample_in_batch` without log q: popular items are penalised too much."""
    negatives = sample_in_batch(context)
    return replace(negatives, log_q=torch.zeros_like(negatives.log_q), positive_log_q=None)


def sample_full(context: StepContext) -> SampledNegatives:
    """Use every item of the catalogue once, encoded in each step; seen items are masked.

    log q = 0 for negatives and positives: each expected count is 1. On small catalogues this is
    the upper bound of what a sampler gains by estimating the full softmax better.
    """
    rows = torch.arange(len(context.target_share), device=context.positive_rows.device)
    return SampledNegatives(
        vectors=context.encode(rows),
        log_q=context.queries.new_zeros(len(rows)),
        is_masked=context.is_seen(rows),
        positive_log_q=context.queries.new_zeros(len(context.positive_rows)),
        rows=rows,
        num_encoded=len(rows),
    )


@dataclass(frozen=True)
class UniformSampler:
    """Samples `count` shared items per step, uniformly with replacement (UNS).

    log q = log(count / num_items) for negatives and positives. It is constant and cancels in
    the softmax; it is returned because the loss treats all samplers alike.
    """

    count: int

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Sample and encode items, and mask seen ones."""
        rows = context.sample_uniform(self.count)
        expected = self.count / len(context.target_share)
        log_q = torch.full((), math.log(expected), device=rows.device)
        return SampledNegatives(
            vectors=context.encode(rows),
            log_q=log_q.expand(self.count),
            is_masked=context.is_seen(rows),
            positive_log_q=log_q.expand(len(context.positive_rows)),
            rows=rows,
            num_encoded=self.count,
        )


class PopularitySampler:
    """Samples `count` shared items per step with replacement, q proportional to share^exponent.

    The share is that of the training *targets*: an item that is never a target has probability
    0 for every exponent. log q = log(count * share^exponent / sum of share^exponent), for
    negatives and positives.

    Source: PNS with the exponent 0.75 of word2vec (Mikolov et al., NeurIPS 2013).
    """

    def __init__(self, count: int, exponent: float) -> None:
        self.count, self.exponent = count, exponent
        self._share: Tensor | None = None
        self._table: ProposalTable | None = None

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Sample and encode items, and mask seen ones."""
        table = self.table_of(context)
        rows, probability = table.sample(self.count, context.rng), table.probability
        return SampledNegatives(
            vectors=context.encode(rows),
            log_q=torch.log(self.count * probability[rows]),
            is_masked=context.is_seen(rows),
            positive_log_q=torch.log(self.count * probability[context.positive_rows]),
            rows=rows,
            num_encoded=self.count,
        )

    def table_of(self, context: StepContext) -> "ProposalTable":
        """Return the proposal distribution; it is constant within a run and built once."""
        if self._table is None or self._share is not context.target_share:
            self._share = context.target_share
            self._table = build_proposal_table(self._share, self.exponent)
        return self._table


@dataclass(frozen=True)
class ProposalTable:
    """Proposal distribution over items, with O(log num_items) sampling.

    Attributes:
        probability: [num_items] float32, sum 1.
        rows: [support] int64, items with a probability above 0.
        cumulative: [support] float64, cumulative probabilities of `rows`; the last is 1.
    """

    probability: Tensor
    rows: Tensor
    cumulative: Tensor

    def sample(self, count: int, rng: Generator) -> Tensor:
        """Sample item rows with replacement; [count]."""
        points = torch.rand(count, generator=rng, dtype=torch.float64)
        positions = torch.searchsorted(self.cumulative, points.to(self.rows.device))
        return self.rows[positions.clamp(max=len(self.rows) - 1)]


def build_proposal_table(share: Tensor, exponent: float) -> ProposalTable:
    """Build the table of share^exponent, normalised; a share of 0 has probability 0."""
    rows = torch.nonzero(share).squeeze(1)
    weights = share[rows].double() ** exponent
    weights = weights / weights.sum()
    probability = torch.zeros_like(share, dtype=torch.float32)
    probability[rows] = weights.float()
    return ProposalTable(probability, rows, torch.cumsum(weights, 0))
