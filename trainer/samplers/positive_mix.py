"""Hard items moved towards the positive: near it, and still not it."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainer.samplers.interface import Context, Negatives


@dataclass(frozen=True)
class PositiveMix:
    """Gives every row `kept` virtual negatives a * positive + (1 - a) * hardest candidate.

    A pool of `count` items is drawn uniformly and encoded once a step. For each negative a row
    draws `candidates` of the pool and one a ~ U(0, 1) for all of them; the highest-scoring
    mixture stays. With one a for all, that is the mixture of the highest-scoring candidate.
    Gradient flows into both ends. No log q: the choice is the model's.

    Source: positive mixing of MixGCF (Huang et al., KDD 2021). Where we differ: no graph, so no
    hops to mix over; candidates come from a shared pool; they are chosen before, and mixtures
    put back on the unit sphere after; known positives never are candidates.
    """

    count: int
    candidates: int
    kept: int

    def __call__(self, context: Context) -> Negatives:
        """Draw and encode the pool, choose per row, and mix."""
        device, rng = context.positive_rows.device, context.rng
        pool = torch.randint(len(context.target_share), (self.count,), generator=rng)
        pool = pool.to(device)
        vectors, is_known = context.encode(pool), context.is_known(pool)
        batch = len(context.positive_rows)
        groups = torch.randint(
            self.count, (batch, self.kept, self.candidates), generator=rng
        ).to(device)
        with torch.no_grad():
            scores = (context.queries @ vectors.T).masked_fill(is_known, -torch.inf)
            chosen = best_of(groups, scores)  # [batch, kept]
        part = torch.rand(batch, self.kept, 1, generator=rng).to(device)
        mixed = part * context.positives[:, None] + (1 - part) * vectors[chosen]
        return Negatives(
            vectors=functional.normalize(mixed, dim=-1),
            log_q=mixed.new_zeros(batch, self.kept),
            is_masked=torch.gather(is_known, 1, chosen),
            encoded_count=self.count,
        )


def best_of(groups: Tensor, scores: Tensor) -> Tensor:
    """Choose the highest-scoring place of every group.

    groups   [batch, kept, candidates]  places in the pool
    scores   [batch, pool]
    returns  [batch, kept]              places in the pool
    """
    flat = groups.flatten(start_dim=1)  # [batch, kept * candidates]
    found = torch.gather(scores, 1, flat).view_as(groups)
    return torch.gather(groups, 2, found.argmax(dim=2, keepdim=True)).squeeze(2)
