"""Mixtures of the batch's positives as further negatives: varied, and none encoded."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn import functional

from trainer.samplers.in_batch import in_batch
from trainer.samplers.interface import Context, Negatives


@dataclass(frozen=True)
class BatchMix:
    """Shares the batch's positives, and `count` mixtures of all of them.

    batch_part       g, the weight of the batch; the mixtures have 1 - g
    mix_temperature  T of the mixing weights

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
    batch_part: float
    mix_temperature: float

    def __call__(self, context: Context) -> Negatives:
        """Mix, and mask what each user is known to like in the batch itself."""
        batch = in_batch(context)
        share = context.target_share[context.positive_rows]
        weights = mixing_weights(share, self.count, self.mix_temperature, context.rng)
        mixtures = functional.normalize(weights @ context.positives, dim=-1)
        expected = math.log(self.count / len(context.target_share))
        log_q = [
            batch.log_q - math.log(self.batch_part),
            mixtures.new_full((self.count,), expected - math.log(1 - self.batch_part)),
        ]
        is_never = batch.is_masked.new_zeros(len(share), self.count)
        return replace(
            batch,
            vectors=torch.cat([batch.vectors, mixtures]),
            log_q=torch.cat(log_q),
            is_masked=torch.cat([batch.is_masked, is_never], dim=1),
            rows=None,
        )


def mixing_weights(share: Tensor, count: int, temperature: float, rng: Generator) -> Tensor:
    """Draw softmax over j of (r_kj - log p_j) / T, r ~ U(0, 1): rare items weigh more.

    share    [batch]         p, each item's share of the targets
    returns  [count, batch]  rows of sum 1
    """
    noise = torch.rand(count, len(share), generator=rng).to(share.device)
    return torch.softmax((noise - torch.log(share)) / temperature, dim=1)
