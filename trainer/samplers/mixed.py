"""The batch's positives and uniform draws together: popular items, and those never met."""

from dataclasses import dataclass

import torch

from trainer.samplers.interface import Context, Negatives


@dataclass(frozen=True)
class Mixed:
    """Shares the batch's positives, and `count` items drawn uniformly with replacement.

    Either kind may bring any item, so each negative and each positive has the law of the whole
    set: log q = log(batch * target share + count / items), each part with its own count.

    Source: MNS (Yang et al., WWW 2020 companion).
    """

    count: int

    def __call__(self, context: Context) -> Negatives:
        """Draw, encode the uniform part, and mask what each user is known to like."""
        share, positive_rows = context.target_share, context.positive_rows
        drawn = torch.randint(len(share), (self.count,), generator=context.rng)
        drawn = drawn.to(positive_rows.device)
        rows = torch.cat([positive_rows, drawn])  # [batch + count]
        log_q = torch.log(len(positive_rows) * share[rows] + self.count / len(share))
        return Negatives(
            vectors=torch.cat([context.positives, context.encode(drawn)]),
            log_q=log_q,
            is_masked=context.is_known(rows),
            positive_log_q=log_q[: len(positive_rows)],
            rows=rows,
            encoded_count=self.count,
        )
