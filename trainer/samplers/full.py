"""Every item of the catalogue: no sampling at all, and so what all estimates aim at."""

import torch

from trainer.samplers.interface import Context, Negatives


def full(context: Context) -> Negatives:
    """Take every item once, encoded anew each step; what a user is known to like is masked.

    log q is 0 at negatives and positives alike: each is there exactly once. For small
    catalogues it tells how much a sampler could still gain by estimating better.
    """
    rows = torch.arange(len(context.target_share), device=context.positive_rows.device)
    return Negatives(
        vectors=context.encode(rows),
        log_q=context.queries.new_zeros(len(rows)),
        is_masked=context.is_known(rows),
        positive_log_q=context.queries.new_zeros(len(context.positive_rows)),
        rows=rows,
        encoded_count=len(rows),
    )
