"""Samplers of the literature that mix sources, choose hard items, or make virtual ones."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn import functional

from trainer.samplers.base import SampledNegatives, StepContext
from trainer.samplers.simple import sample_in_batch


@dataclass(frozen=True)
class MixedSampler:
    """Shares the batch's positives, and `count` items drawn uniformly with replacement (MNS).

    Either kind may bring any item, so each negative and each positive has the proposal
    distribution of the whole set: log q = log(batch * target share + count / items).

    Source: MNS (Yang et al., WWW 2020 companion).
    """

    count: int

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Draw, encode the uniform part, and mask seen items."""
        share, positive_rows = context.target_share, context.positive_rows
        drawn = context.draw_uniformly(self.count)
        rows = torch.cat([positive_rows, drawn])  # [batch + count]
        log_q = torch.log(len(positive_rows) * share[rows] + self.count / len(share))
        return SampledNegatives(
            vectors=torch.cat([context.positives, context.encode(drawn)]),
            log_q=log_q,
            is_masked=context.is_seen(rows),
            positive_log_q=log_q[: len(positive_rows)],
            rows=rows,
            encoded_count=self.count,
        )


class CrossBatchSampler:
    """Shares the batch's positives, and a bank of the last `size` before them (CBNS).

    The bank is a queue, the oldest leave first. Past vectors are as their step left them, its
    hidden ids included, and take no gradient. They are kept from the first step on, and used
    once `warmup_steps` steps are taken: a tower that still moves fast leaves them stale at once.
    Batch and bank have one proposal distribution, log q = log((batch + held) * target share),
    at negatives and positives alike. Seen items are masked in the bank as in the batch.

    Source: CBNS (Wang, Zhu, He, SIGIR 2021); the sizes are ours. Where we differ: as the bank
    takes no gradient, it would pull every item towards its users and push back only with the
    batch's part of the negatives: all items ran into one point (mean vector of length 1 within
    an epoch, on a real set). The batch's items are draws of the same distribution, so the push
    that they take as negatives counts (batch + held) / batch times, for the bank's too.
    """

    def __init__(self, size: int, warmup_steps: int) -> None:
        self.size, self.warmup_steps = size, warmup_steps
        self._bank: tuple[Tensor, Tensor] | None = None  # rows [held], vectors [held, dim]

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Draw from batch and bank, then put the batch into the bank."""
        rows, vectors = context.positive_rows, context.positives
        bank_rows, bank_vectors = self._held(context)
        if context.step >= self.warmup_steps:
            rows = torch.cat([rows, bank_rows])  # [batch + held]
            vectors = scale_gradient(vectors, len(rows) / len(vectors))
            vectors = torch.cat([vectors, bank_vectors])
        self._bank = (
            torch.cat([bank_rows, context.positive_rows])[-self.size :],
            torch.cat([bank_vectors, context.positives.detach()])[-self.size :],
        )
        log_q = torch.log(len(rows) * context.target_share[rows])
        return SampledNegatives(
            vectors=vectors,
            log_q=log_q,
            is_masked=context.is_seen(rows),
            positive_log_q=log_q[: len(context.positive_rows)],
            rows=rows,
        )

    def state(self) -> dict[str, Tensor]:
        """Return the bank, oldest first."""
        return dict(zip(("rows", "vectors"), self._bank, strict=True)) if self._bank else {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore a bank."""
        self._bank = (state["rows"], state["vectors"]) if state else None

    def _held(self, context: StepContext) -> tuple[Tensor, Tensor]:
        """Return the bank on the context's device; empty at first."""
        if self._bank is None:
            return context.positive_rows[:0], context.positives[:0].detach()
        rows, vectors = self._bank
        return rows.to(context.positive_rows.device), vectors.to(context.positives.device)


@dataclass(frozen=True)
class DnsSampler:
    """Draws a pool of `count` items uniformly; each row keeps its `kept` highest-scoring (DNS).

    The pool is shared by the batch and encoded once; what a row does not keep is masked in that
    row. A seen item is never kept, unless a row has seen too many to keep enough: then it has
    fewer negatives. No log q: the choice is the point, and has no tractable distribution.

    Source: DNS (Zhang et al., SIGIR 2013), DNS(M, N) (Shi et al., WWW 2023). There every
    positive has a pool of M to itself and takes one of the top N at random, for a pairwise
    loss; our loss is a softmax and takes all N. A pool per row would cost batch * M encodings.
    """

    count: int
    kept: int

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Draw and encode the pool, and mask all but each row's hardest."""
        pool = context.draw_uniformly(self.count)
        vectors, is_seen = context.encode(pool), context.is_seen(pool)  # [batch, count]
        with torch.no_grad():
            scores = (context.queries @ vectors.T).masked_fill(is_seen, -torch.inf)
            hardest = scores.topk(self.kept, dim=1).indices  # [batch, kept]
        is_kept = torch.zeros_like(is_seen).scatter_(1, hardest, True)
        return SampledNegatives(
            vectors=vectors,
            log_q=vectors.new_zeros(self.count),
            is_masked=is_seen | ~is_kept,
            rows=pool,
            encoded_count=self.count,
        )


@dataclass(frozen=True)
class BatchMixSampler:
    """Shares the batch's positives, and `count` mixtures of all of them (BMNS).

    in_batch_weight       g, the weight of the batch; the mixtures have 1 - g
    mixing_temperature  T of the mixing weights

    Source: BMNS (Fan et al., CIKM 2023). Where we differ:
      - Its loss is g * L_batch + (1 - g) * L_mix, two softmaxes. Ours is one: every sum of
        exponentials gets its weight through log q, -log g and -log(1 - g). That is never below
        its loss (Jensen), and equal where both sums are.
      - Its mixtures have no log q. Weights of 1 / p make a mixture stand for a uniform draw, so
        ours have log(count / items); with none they would vanish beside the batch.
      - Mixtures are put back on the unit sphere, as every vector here.
    A mixture holds a little of every positive, the row's own too: it cannot be masked.
    The weights of the two kinds are scaled by `log_q_share` as all of log q is.
    """

    count: int
    in_batch_weight: float
    mixing_temperature: float

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Mix, and mask seen items in the batch itself."""
        batch = sample_in_batch(context)
        share = context.target_share[context.positive_rows]
        weights = mixing_weights(share, self.count, self.mixing_temperature, context.rng)
        mixtures = functional.normalize(weights @ context.positives, dim=-1)
        expected = math.log(self.count / len(context.target_share))
        log_q = [
            batch.log_q - math.log(self.in_batch_weight),
            mixtures.new_full((self.count,), expected - math.log(1 - self.in_batch_weight)),
        ]
        is_never = batch.is_masked.new_zeros(len(share), self.count)
        return replace(
            batch,
            vectors=torch.cat([batch.vectors, mixtures]),
            log_q=torch.cat(log_q),
            is_masked=torch.cat([batch.is_masked, is_never], dim=1),
            rows=None,
        )


@dataclass(frozen=True)
class PositiveMixingSampler:
    """Gives every row `kept` virtual negatives a * positive + (1 - a) * hardest candidate.

    A pool of `count` items is drawn uniformly and encoded once a step. For each negative a row
    draws `candidates` of the pool and one a ~ U(0, 1) for all of them; the highest-scoring
    mixture stays. With one a for all, that is the mixture of the highest-scoring candidate.
    Gradient flows into both ends. No log q: the choice is the model's.

    Source: positive mixing of MixGCF (Huang et al., KDD 2021). Where we differ: no graph, so no
    hops to mix over; candidates come from a shared pool; they are chosen before, and mixtures
    put back on the unit sphere after; seen items never are candidates.
    """

    count: int
    candidates: int
    kept: int

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Draw and encode the pool, choose per row, and mix."""
        device, rng = context.positive_rows.device, context.rng
        pool = context.draw_uniformly(self.count)
        vectors, is_seen = context.encode(pool), context.is_seen(pool)
        batch = len(context.positive_rows)
        shape = (batch, self.kept, self.candidates)
        groups = torch.randint(self.count, shape, generator=rng).to(device)
        with torch.no_grad():
            scores = (context.queries @ vectors.T).masked_fill(is_seen, -torch.inf)
            chosen = best_candidates(groups, scores)  # [batch, kept]
        part = torch.rand(batch, self.kept, 1, generator=rng).to(device)
        mixed = part * context.positives[:, None] + (1 - part) * vectors[chosen]
        return SampledNegatives(
            vectors=functional.normalize(mixed, dim=-1),
            log_q=mixed.new_zeros(batch, self.kept),
            is_masked=torch.gather(is_seen, 1, chosen),
            encoded_count=self.count,
        )


def scale_gradient(vectors: Tensor, factor: float) -> Tensor:
    """Return the same vectors, whose gradient counts `factor` times."""
    fixed = vectors.detach()
    return fixed + factor * (vectors - fixed)


def mixing_weights(share: Tensor, count: int, temperature: float, rng: Generator) -> Tensor:
    """Draw softmax over j of (r_kj - log p_j) / T, r ~ U(0, 1): rare items weigh more.

    share    [batch]         p, each item's share of the targets
    returns  [count, batch]  rows of sum 1
    """
    noise = torch.rand(count, len(share), generator=rng).to(share.device)
    return torch.softmax((noise - torch.log(share)) / temperature, dim=1)


def best_candidates(groups: Tensor, scores: Tensor) -> Tensor:
    """Choose the highest-scoring place of every group.

    groups   [batch, kept, candidates]  places in the pool
    scores   [batch, pool]
    returns  [batch, kept]              places in the pool
    """
    flat = groups.flatten(start_dim=1)  # [batch, kept * candidates]
    found = torch.gather(scores, 1, flat).view_as(groups)
    return torch.gather(groups, 2, found.argmax(dim=2, keepdim=True)).squeeze(2)
