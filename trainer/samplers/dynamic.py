"""What the model itself finds hardest among items drawn at random."""

from dataclasses import dataclass

import torch

from trainer.samplers.interface import Context, Negatives


@dataclass(frozen=True)
class Dynamic:
    """Draws a pool of `count` items uniformly; each row keeps its `kept` highest-scoring.

    The pool is shared by the batch and encoded once; what a row does not keep is masked in that
    row. A known positive is never kept, unless a row knows too many to keep enough: then
    it has fewer negatives. No log q: the choice is the point, and has no tractable law.

    Source: DNS (Zhang et al., SIGIR 2013), DNS(M, N) (Shi et al., WWW 2023). There every
    positive has a pool of M to itself and takes one of the top N at random, for a pairwise
    loss; our loss is a softmax and takes all N. A pool per row would cost batch * M encodings.
    """

    count: int
    kept: int

    def __call__(self, context: Context) -> Negatives:
        """Draw and encode the pool, and mask all but each row's hardest."""
        device = context.positive_rows.device
        pool = torch.randint(len(context.target_share), (self.count,), generator=context.rng)
        pool = pool.to(device)
        vectors = context.encode(pool)
        is_known = context.is_known(pool)  # [batch, count]
        with torch.no_grad():
            scores = (context.queries @ vectors.T).masked_fill(is_known, -torch.inf)
            hardest = scores.topk(self.kept, dim=1).indices  # [batch, kept]
        is_kept = torch.zeros_like(is_known).scatter_(1, hardest, True)
        return Negatives(
            vectors=vectors,
            log_q=vectors.new_zeros(self.count),
            is_masked=is_known | ~is_kept,
            rows=pool,
            encoded_count=self.count,
        )
