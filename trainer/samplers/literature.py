"""Samplers of the literature that mix sources, mine hard negatives or make virtual ones."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn import functional

from trainer.samplers.base import SampledNegatives, StepContext
from trainer.samplers.simple import sample_in_batch


@dataclass(frozen=True)
class MixedSampler:
    """Mixed negative sampling (MNS): in-batch negatives and `count` uniform ones, all shared.

    Either source may sample any item, so log q is that of the mixture, for negatives and
    positives: log q = log(batch * target_share + count / num_items).

    Source: MNS (Yang et al., WWW 2020 companion).
    """

    count: int

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Sample and encode the uniform part, and mask seen items."""
        share, positive_rows = context.target_share, context.positive_rows
        uniform = context.sample_uniform(self.count)
        rows = torch.cat([positive_rows, uniform])  # [batch + count]
        log_q = torch.log(len(positive_rows) * share[rows] + self.count / len(share))
        return SampledNegatives(
            vectors=torch.cat([context.positives, context.encode(uniform)]),
            log_q=log_q,
            is_masked=context.is_seen(rows),
            positive_log_q=log_q[: len(positive_rows)],
            rows=rows,
            num_encoded=self.count,
        )


@dataclass(frozen=True)
class DnsSampler:
    """Dynamic negative sampling (DNS): each row keeps the `kept` best-scored of a uniform pool.

    The pool of `count` items is shared by the batch and encoded once; in each row, what is not
    kept is masked. A seen item is never kept: a row with fewer unseen items in the pool has
    fewer negatives. log q = 0, because the selection has no tractable distribution.

    Source: DNS (Zhang et al., SIGIR 2013), DNS(M, N) (Shi et al., WWW 2023). Deviation: there
    every positive has its own pool of M and a pairwise loss takes one of the top N at random;
    our softmax takes all N. A pool per row would encode batch * M items.
    """

    count: int
    kept: int

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Sample and encode the pool, and mask all but the hardest items of each row."""
        pool = context.sample_uniform(self.count)
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
            num_encoded=self.count,
        )


@dataclass(frozen=True)
class BatchMixSampler:
    """Batch-mix negative sampling (BMNS): in-batch negatives and `count` mixtures of them.

    Source: BMNS (Fan et al., CIKM 2023). Deviations:
      - Its loss is g * L_batch + (1 - g) * L_mix with two softmaxes. Ours is one softmax that
        weights the two sums of exponentials through log q: -log g and -log(1 - g). It is an
        upper bound of theirs (Jensen), tight where both sums are equal.
      - Its mixtures have no log q. With mixing weights of 1 / p a mixture stands for a uniform
        sample, so ours have log(count / num_items); without it they vanish beside the batch.
      - Mixtures are normalised, like every vector here.
    A mixture contains a little of every positive, the row's own included: it is never masked.
    `log_q_share` scales the weights of the two parts like the rest of log q.

    Attributes:
        count: mixtures per step.
        in_batch_weight: g, the weight of the batch; the mixtures have 1 - g.
        mixing_temperature: T of the mixing weights.
    """

    count: int
    in_batch_weight: float
    mixing_temperature: float

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Mix the batch, and mask seen items in the batch itself."""
        batch = sample_in_batch(context)
        share = context.target_share[context.positive_rows]
        weights = sample_mixing_weights(share, self.count, self.mixing_temperature, context.rng)
        mixtures = functional.normalize(weights @ context.positives, dim=-1)
        log_expected = math.log(self.count / len(context.target_share))
        log_q = [
            batch.log_q - math.log(self.in_batch_weight),
            mixtures.new_full((self.count,), log_expected - math.log(1 - self.in_batch_weight)),
        ]
        unmasked = batch.is_masked.new_zeros(len(share), self.count)
        return replace(
            batch,
            vectors=torch.cat([batch.vectors, mixtures]),
            log_q=torch.cat(log_q),
            is_masked=torch.cat([batch.is_masked, unmasked], dim=1),
            rows=None,
        )


@dataclass(frozen=True)
class PositiveMixingSampler:
    """Positive mixing (MixGCF-style): `kept` virtual negatives per row, near the positive.

    A virtual negative is a * positive + (1 - a) * hardest candidate. A pool of `count` items is
    sampled uniformly and encoded once per step. For each negative a row samples `candidates`
    items of the pool and one a ~ U(0, 1); the highest-scoring mixture stays, which with one `a`
    is the mixture with the highest-scoring candidate. Gradient flows into both ends. log q = 0,
    because the model makes the selection.

    Source: positive mixing of MixGCF (Huang et al., KDD 2021). Deviations: no graph, so no hops
    to mix over; candidates come from a shared pool and are selected before mixing; mixtures are
    normalised; seen items are never candidates.
    """

    count: int
    candidates: int
    kept: int

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Sample and encode the pool, select candidates per row, and mix."""
        device, rng = context.positive_rows.device, context.rng
        pool = context.sample_uniform(self.count)
        vectors, is_seen = context.encode(pool), context.is_seen(pool)
        batch = len(context.positive_rows)
        shape = (batch, self.kept, self.candidates)
        groups = torch.randint(self.count, shape, generator=rng).to(device)
        with torch.no_grad():
            scores = (context.queries @ vectors.T).masked_fill(is_seen, -torch.inf)
            selected = select_candidates(groups, scores)  # [batch, kept]
        alpha = torch.rand(batch, self.kept, 1, generator=rng).to(device)
        chosen = functional.embedding(selected, vectors)  # its gradient is deterministic
        mixed = alpha * context.positives[:, None] + (1 - alpha) * chosen
        return SampledNegatives(
            vectors=functional.normalize(mixed, dim=-1),
            log_q=mixed.new_zeros(batch, self.kept),
            is_masked=torch.gather(is_seen, 1, selected),
            num_encoded=self.count,
        )


def sample_mixing_weights(share: Tensor, count: int, temperature: float, rng: Generator) -> Tensor:
    """Sample softmax over j of (r_kj - log p_j) / T, r ~ U(0, 1): rare items weigh more.

    Args:
        share: [batch], p, share of each item of the targets.
        count: rows to sample.
        temperature: T.
        rng: of the step.

    Returns:
        [count, batch], rows of sum 1.
    """
    noise = torch.rand(count, len(share), generator=rng).to(share.device)
    return torch.softmax((noise - torch.log(share)) / temperature, dim=1)


def select_candidates(groups: Tensor, scores: Tensor) -> Tensor:
    """Select the highest-scoring candidate of every group.

    Args:
        groups: [batch, kept, candidates], positions in the pool.
        scores: [batch, pool].

    Returns:
        [batch, kept], positions in the pool.
    """
    flat = groups.flatten(start_dim=1)  # [batch, kept * candidates]
    group_scores = torch.gather(scores, 1, flat).view_as(groups)
    return torch.gather(groups, 2, group_scores.argmax(dim=2, keepdim=True)).squeeze(2)
