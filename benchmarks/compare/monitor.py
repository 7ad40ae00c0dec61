"""Statistics of a sampler's negatives: share of false ones, scores, variety and cost."""

import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from trainer.loss import score_vectors
from trainer.samplers.base import SampledNegatives, Sampler, StepContext
from trainer.seen_items import SeenItems

EVERY = 10  # steps between two records of scores and false negatives


class SamplerMonitor:
    """Wraps a sampler and collects statistics of its negatives.

    Virtual negatives beside sets of items contribute their scores only. Where no set has rows,
    the encoded items are counted instead: every pair of a batch row and an encoded item that
    its user has not seen. `health_of` says which of the two was counted.

    It has no checkpoint state: a monitored run cannot be resumed.

    Args:
        sampler: The wrapped sampler.
        held_out: Each user's positives in validation and test.
        steps_per_epoch: Separates the distinct items of epochs.
        every: Steps between two records of scores and false negatives.
    """

    def __init__(
        self, sampler: Sampler, held_out: SeenItems, steps_per_epoch: int, every: int
    ) -> None:
        self.sampler, self.held_out = sampler, held_out
        self.steps_per_epoch, self.every = steps_per_epoch, every
        self.seconds = 0.0
        self._steps = self._encoded = 0
        self._false = self._pairs = 0
        self._score_sum, self._scores = 0.0, 0
        self._distinct: dict[int, Tensor] = {}  # epoch -> [items] bool
        self._is_virtual = False
        self._last_exit: tuple[int, float] | None = None  # step, CPU time
        self._cpu_seconds, self._cpu_steps = 0.0, 0

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Sample negatives and record them."""
        encoded: list[Tensor] = []

        def encode(rows: Tensor) -> Tensor:
            encoded.append(rows.flatten())
            return context.encode(rows)

        sampled = self.sampler(replace(context, encode=encode))
        self._count_cpu(context.step)
        began = time.perf_counter()
        with torch.no_grad():
            self._record(context, sampled, encoded)
        self.seconds += time.perf_counter() - began
        self._last_exit = (context.step, time.process_time())
        return sampled

    def figures(self) -> dict[str, float | str | None]:
        """Return the statistics; None where nothing was counted.

        Returns:
            false_negative_share: Share of unmasked negatives that are held-out positives.
            negative_score: Mean score of the unmasked negatives, -1..1.
            distinct_per_epoch: Distinct unmasked negatives, mean over the epochs.
            cpu_seconds_per_step: CPU time of this process from one call to the next.
            encoded_per_step: Items encoded for sampling, candidates included.
        """

        def mean(total: float, count: int) -> float | None:
            return total / count if count else None

        distinct = sum(int(is_used.sum()) for is_used in self._distinct.values())
        health_of = "encoded" if self._is_virtual else "sampled"
        return {
            "cpu_seconds_per_step": mean(self._cpu_seconds, self._cpu_steps),
            "encoded_per_step": self._encoded / max(1, self._steps),
            "false_negative_share": mean(self._false, self._pairs),
            "negative_score": mean(self._score_sum, self._scores),
            "distinct_per_epoch": mean(distinct, len(self._distinct)),
            "health_of": health_of if self._pairs else None,
        }

    def _count_cpu(self, step: int) -> None:
        """Add the CPU time since the last step; not across epochs, which end with validation."""
        if self._last_exit is None or step % self.steps_per_epoch == 0:
            return
        last, cpu = self._last_exit
        if step == last + 1:
            self._cpu_seconds += time.process_time() - cpu
            self._cpu_steps += 1

    def _record(
        self, context: StepContext, sampled: SampledNegatives, encoded: list[Tensor]
    ) -> None:
        self._steps += 1
        self._encoded += sampled.num_encoded
        is_recorded = context.step % self.every == 0
        if is_recorded:
            for part in sampled.sets():
                scores = score_vectors(context.queries, part.vectors)
                self._score_sum += float(scores.masked_fill(part.is_masked, 0).sum())
                self._scores += int((~part.is_masked).sum())
        for rows, is_masked in self._items_of(context, sampled, encoded):
            self._count_items(context, rows, is_masked)
            if is_recorded:
                held_out = self.held_out.contains(context.user_rows, rows)
                self._false += int((held_out & ~is_masked).sum())
                self._pairs += int((~is_masked).sum())

    def _items_of(
        self, context: StepContext, sampled: SampledNegatives, encoded: list[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows and mask of each set of items."""
        known = [negatives for negatives in sampled.sets() if negatives.rows is not None]
        for negatives in known:
            assert negatives.rows is not None
            yield negatives.rows, negatives.is_masked
        if not known:
            self._is_virtual = True
        if not known and encoded:
            rows = torch.unique(torch.cat(encoded))
            yield rows, context.is_seen(rows)

    def _count_items(self, context: StepContext, rows: Tensor, is_masked: Tensor) -> None:
        """Mark the items that are an unmasked negative of any row."""
        epoch = context.step // self.steps_per_epoch
        if epoch not in self._distinct:
            self._distinct[epoch] = torch.zeros_like(context.target_share, dtype=torch.bool)
        is_shared = rows.ndim == 1
        used = rows[~is_masked.all(dim=0)] if is_shared else rows[~is_masked]
        self._distinct[epoch][used] = True
