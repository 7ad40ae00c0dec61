"""Samplers with a memory bank: vectors of earlier steps are negatives, too, and encode nothing."""

import torch
from torch import Tensor

from trainer.samplers.base import SampledNegatives, StepContext
from trainer.samplers.simple import PopularitySampler


class BankSampler:
    """Base of samplers with a bank: the last `size` item vectors, as their step computed them.

    Early vectors go stale at once, so the bank fills from the first step and is used after
    `warmup_steps` steps.

    Its entries take no gradient. With a bank, an item would get all of its pull as a positive but
    only part of its push as a negative; on a real dataset all items collapsed into one point (mean
    vector of length 1 within an epoch). The vectors of the step are samples of the same
    distribution, so their gradient as negatives is multiplied by (step + bank) / step to include
    that of the bank.
    """

    def __init__(self, size: int, warmup_steps: int) -> None:
        self.size, self.warmup_steps = size, warmup_steps
        self._entries: tuple[Tensor, Tensor] | None = None  # rows [bank], vectors [bank, dim]

    def _extend(self, rows: Tensor, vectors: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return the rows and vectors of a step, followed by those of the bank; then keep them."""
        bank_rows, bank_vectors = rows[:0], vectors[:0].detach()
        if self._entries is not None:
            bank_rows = self._entries[0].to(rows.device)
            bank_vectors = self._entries[1].to(vectors.device)
        self._entries = (
            torch.cat([bank_rows, rows])[-self.size :],
            torch.cat([bank_vectors, vectors.detach()])[-self.size :],
        )
        if step < self.warmup_steps:
            return rows, vectors
        all_rows = torch.cat([rows, bank_rows])
        scaled = scale_gradient(vectors, len(all_rows) / len(rows))
        return all_rows, torch.cat([scaled, bank_vectors])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the entries, oldest first."""
        return dict(zip(("rows", "vectors"), self._entries, strict=True)) if self._entries else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the entries."""
        self._entries = (state["rows"], state["vectors"]) if state else None


class CrossBatchSampler(BankSampler):
    """Cross-batch negative sampling (CBNS): in-batch negatives and a bank of past ones.

    The bank holds the last `size` positives. Batch and bank have one proposal distribution:
    log q = log((batch + bank) * target_share), for negatives and positives, where `bank` is the
    current number of entries. Seen items are masked in both.

    Source: CBNS (Wang, Zhu, He, SIGIR 2021); the sizes are ours. Deviation: the gradient of the
    in-batch negatives is scaled, see `BankSampler`.
    """

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Sample from batch and bank."""
        rows, vectors = self._extend(context.positive_rows, context.positives, context.step)
        log_q = torch.log(len(rows) * context.target_share[rows])
        return SampledNegatives(
            vectors=vectors,
            log_q=log_q,
            is_masked=context.is_seen(rows),
            positive_log_q=log_q[: len(context.positive_rows)],
            rows=rows,
        )


class PopularityBankSampler(BankSampler):
    """Popularity sampling with a bank: `count` new items a step, and the last `size` earlier ones.

    New items and bank have one proposal distribution, that of `PopularitySampler`:
    log q = log((count + bank) * probability), for negatives and positives, where `bank` is the
    current number of entries. A reference for what a bank adds to a sampler that encodes items.
    """

    def __init__(self, count: int, exponent: float, size: int, warmup_steps: int) -> None:
        super().__init__(size, warmup_steps)
        self._popularity = PopularitySampler(count, exponent)

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Sample and encode items, and add the bank."""
        table, count = self._popularity.table_of(context), self._popularity.count
        sampled = table.sample(count, context.rng)
        rows, vectors = self._extend(sampled, context.encode(sampled), context.step)
        return SampledNegatives(
            vectors=vectors,
            log_q=torch.log(len(rows) * table.probability[rows]),
            is_masked=context.is_seen(rows),
            positive_log_q=torch.log(len(rows) * table.probability[context.positive_rows]),
            rows=rows,
            num_encoded=count,
        )


def scale_gradient(vectors: Tensor, factor: float) -> Tensor:
    """Return vectors of the same values whose gradient is multiplied by `factor`."""
    fixed = vectors.detach()
    return fixed + factor * (vectors - fixed)
