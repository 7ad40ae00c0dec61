"""The batch's positives and those of past steps: many negatives, no further item encoded."""

import torch
from torch import Tensor

from trainer.samplers.interface import Context, Negatives


class CrossBatch:
    """Shares the batch's positives, and a bank of the last `size` before them.

    The bank is a queue, the oldest leave first. Past vectors are as their step left them, its
    hidden ids included, and take no gradient. They are kept from the first step on, and used
    once `warm_up` steps are taken: a tower that still moves fast leaves them stale at once.
    Batch and bank are draws of one law, log q = log((batch + held) * target share), at
    negatives and positives alike. Known positives are masked in the bank as in the batch.

    Source: CBNS (Wang, Zhu, He, SIGIR 2021); the sizes are ours. Where we differ: as the bank
    takes no gradient, it would pull every item towards its users and push back only with the
    batch's part of the negatives: all items ran into one point (mean vector of length 1 within
    an epoch, on a real set). The batch's items are draws of the same law, so the push that they
    take as negatives counts (batch + held) / batch times, for the bank's too.
    """

    def __init__(self, size: int, warm_up: int) -> None:
        self.size, self.warm_up = size, warm_up
        self._bank: tuple[Tensor, Tensor] | None = None  # rows [held], vectors [held, width]

    def __call__(self, context: Context) -> Negatives:
        """Draw from batch and bank, then put the batch into the bank."""
        rows, vectors = context.positive_rows, context.positives
        bank_rows, bank_vectors = self._held(context)
        if context.step >= self.warm_up:
            rows = torch.cat([rows, bank_rows])  # [batch + held]
            vectors = with_gradient(vectors, len(rows) / len(vectors))
            vectors = torch.cat([vectors, bank_vectors])
        self._bank = (
            torch.cat([bank_rows, context.positive_rows])[-self.size :],
            torch.cat([bank_vectors, context.positives.detach()])[-self.size :],
        )
        log_q = torch.log(len(rows) * context.target_share[rows])
        return Negatives(
            vectors=vectors,
            log_q=log_q,
            is_masked=context.is_known(rows),
            positive_log_q=log_q[: len(context.positive_rows)],
            rows=rows,
        )

    def state(self) -> dict[str, Tensor]:
        """Return the bank, oldest first."""
        return (
            {}
            if self._bank is None
            else dict(zip(("rows", "vectors"), self._bank, strict=True))
        )

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put a bank back."""
        self._bank = (state["rows"], state["vectors"]) if state else None

    def _held(self, context: Context) -> tuple[Tensor, Tensor]:
        """Return the bank where the context's tensors are; empty at first."""
        if self._bank is None:
            return context.positive_rows[:0], context.positives[:0].detach()
        rows, vectors = self._bank
        return rows.to(context.positive_rows.device), vectors.to(context.positives.device)


def with_gradient(vectors: Tensor, factor: float) -> Tensor:
    """Return the very same vectors, whose gradient counts `factor` times."""
    fixed = vectors.detach()
    return fixed + factor * (vectors - fixed)
