"""Statistics of a sampler's negatives: share of false ones, scores, variety and cost."""

import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from trainer.loss import score_vectors
from trainer.samplers.base import SampledNegatives, Sampler, StepContext
from trainer.seen_items import SeenItems

EVERY = 10  # steps; scores and false negatives are a sample of the run


class SamplerMonitor:
    """Calls a sampler and counts what it drew; neither the loop nor the sampler notices.

    held_out         each user's positives in validation and test
    steps_per_epoch  to tell one epoch's items from the next's
    every            steps between two records of scores and false negatives

    Virtual negatives beside sets of items are counted by their score alone. Where no set tells
    its rows, those that were encoded for the draw stand for them: every pair of a row of the
    batch and an encoded item not known to its user. `health_of` says which was counted.
    Nothing encoded, nothing to count.

    It keeps no state for a checkpoint: a monitored run is not resumed.
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
        self._left: tuple[int, float] | None = None  # the last step, CPU time when it was left
        self._cpu_seconds, self._cpu_steps = 0.0, 0

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Draw, and record what was drawn."""
        encoded: list[Tensor] = []

        def encode(rows: Tensor) -> Tensor:
            encoded.append(rows.flatten())
            return context.encode(rows)

        drawn = self.sampler(replace(context, encode=encode))
        self._count_cpu(context.step)
        began = time.perf_counter()
        with torch.no_grad():
            self._record(context, drawn, encoded)
        self.seconds += time.perf_counter() - began
        self._left = (context.step, time.process_time())
        return drawn

    def figures(self) -> dict[str, float | str | None]:
        """Return what was counted; None where there was nothing to count.

        false_negative_share  of the unmasked negatives, held-out positives of their user
        negative_score        mean of the unmasked negatives, -1..1
        distinct_per_epoch    items that were an unmasked negative, mean over the epochs
        cpu_seconds_per_step  of this process, from draw to draw: a busy machine does not show
        encoded_per_step      items encoded for the draws, candidates included
        """

        def mean(total: float, count: int) -> float | None:
            return total / count if count else None

        distinct = sum(int(one.sum()) for one in self._distinct.values())
        health_of = "encoded" if self._is_virtual else "drawn"
        return {
            "cpu_seconds_per_step": mean(self._cpu_seconds, self._cpu_steps),
            "encoded_per_step": self._encoded / max(1, self._steps),
            "false_negative_share": mean(self._false, self._pairs),
            "negative_score": mean(self._score_sum, self._scores),
            "distinct_per_epoch": mean(distinct, len(self._distinct)),
            "health_of": health_of if self._pairs else None,
        }

    def _count_cpu(self, step: int) -> None:
        """Add what a step cost since the last was left; not across epochs: they validate."""
        if self._left is None or step % self.steps_per_epoch == 0:
            return
        last, cpu = self._left
        if step == last + 1:
            self._cpu_seconds += time.process_time() - cpu
            self._cpu_steps += 1

    def _record(self, context: StepContext, drawn: SampledNegatives, encoded: list[Tensor]) -> None:
        self._steps += 1
        self._encoded += drawn.num_encoded
        is_sampled = context.step % self.every == 0
        if is_sampled:
            for part in drawn.sets():
                scores = score_vectors(context.queries, part.vectors)
                self._score_sum += float(scores.masked_fill(part.is_masked, 0).sum())
                self._scores += int((~part.is_masked).sum())
        for rows, is_masked in self._items_of(context, drawn, encoded):
            self._count_items(context, rows, is_masked)
            if is_sampled:
                held_out = self.held_out.contains(context.user_rows, rows)
                self._false += int((held_out & ~is_masked).sum())
                self._pairs += int((~is_masked).sum())

    def _items_of(
        self, context: StepContext, drawn: SampledNegatives, encoded: list[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows of each set of items and whom they are masked for."""
        known = [one for one in drawn.sets() if one.rows is not None]
        for one in known:
            assert one.rows is not None
            yield one.rows, one.is_masked
        if not known:
            self._is_virtual = True
        if not known and encoded:
            rows = torch.unique(torch.cat(encoded))
            yield rows, context.is_seen(rows)

    def _count_items(self, context: StepContext, rows: Tensor, is_masked: Tensor) -> None:
        """Mark the items that are a negative of anyone."""
        epoch = context.step // self.steps_per_epoch
        if epoch not in self._distinct:
            blank = torch.zeros_like(context.target_share, dtype=torch.bool)
            self._distinct[epoch] = blank
        is_shared = rows.ndim == 1
        used = rows[~is_masked.all(dim=0)] if is_shared else rows[~is_masked]
        self._distinct[epoch][used] = True
