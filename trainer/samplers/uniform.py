"""Every item alike: the plainest negatives, and the yardstick of the others."""

import math
from dataclasses import dataclass

import torch

from trainer.samplers.interface import Context, Negatives


@dataclass(frozen=True)
class Uniform:
    """Draws `count` items a step with replacement, each of the catalogue alike.

    They are shared by the batch. log q = log(count / items), everywhere the same, so that it
    cancels in the softmax; it is given all the same, for the loop treats every sampler alike.
    """

    count: int

    def __call__(self, context: Context) -> Negatives:
        """Draw, encode, and mask what each user is known to like."""
        item_count = len(context.target_share)
        device = context.positive_rows.device
        drawn = torch.randint(item_count, (self.count,), generator=context.rng).to(device)
        expected = torch.full((), math.log(self.count / item_count), device=device)
        return Negatives(
            vectors=context.encode(drawn),
            log_q=expected.expand(self.count),
            is_masked=context.is_known(drawn),
            positive_log_q=expected.expand(len(context.positive_rows)),
            rows=drawn,
            encoded_count=self.count,
        )
