"""The ESANS sampler: negatives drawn from a cluster map, and virtual ones between them.

A plain reading of the paper: easy negatives in pairs, shared by the batch; hard ones per row; a
virtual negative for each. Nothing is corrected unless `log_q_share` says so: subtracting the
whole of log q would cancel the very distribution that the map was made for. Beside the batch's
own positives (`in_batch`) it is the other way round: all draws together then have one proposal
distribution, a mixture, and all of its log q is subtracted to estimate the full softmax.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.arrays import Rows
from index.cluster_map import ClusterMap
from trainer.esans.interpolation import (
    draw_share,
    interpolate_hard,
    interpolate_simple,
    normalize_virtual,
)
from trainer.samplers.base import SampledNegatives, StepContext
from trainer.samplers.config import EsansConfig
from trainer.samplers.simple import sample_in_batch


@dataclass(frozen=True)
class EsansSampler:
    """Draws from a cluster map that covers the catalogue row by row.

    Source: the ESANS paper, MSAC (which items) and EDIS (what is made of them). Ours: easy
    draws are shared by the whole batch, so their proposal distribution is the mean over the
    batch's positives; a seen item, or one of the positive's cell, is masked whatever drew it.
    """

    clusters: ClusterMap
    config: EsansConfig

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Draw easy and hard negatives, and interpolate."""
        rng = _numpy_rng(context)
        parts = []
        if self.config.in_batch:
            parts.append(self.in_batch(context))
        if self.config.easy:
            parts += self.easy(context, rng)
        if self.config.hard:
            parts += self.hard(context, rng)
        return _chain(parts)

    def in_batch(self, context: StepContext) -> SampledNegatives:
        """Share the batch's positives, without those of a row's own cell."""
        drawn, positives = sample_in_batch(context), _array(context.positive_rows)
        log_q = self._log_q(context, positives, positives)
        return replace(
            drawn,
            log_q=log_q,
            is_masked=drawn.is_masked | self._same_cell(context, positives),
            positive_log_q=log_q if log_q.ndim == 1 else log_q.diagonal(),
        )

    def easy(self, context: StepContext, rng: np.random.Generator) -> list[SampledNegatives]:
        """Draw pairs of one cluster each for positives of the batch, shared by all of it.

        returns  the pairs [count], and one virtual negative for each of them [count]
        """
        positives = _array(context.positive_rows)
        chosen = rng.choice(positives, self.config.easy // 2)
        pairs = self.clusters.easy_pairs(chosen, rng).reshape(-1)  # [count], pair after pair
        rows = torch.from_numpy(pairs).long().to(context.positive_rows.device)
        drawn = SampledNegatives(
            vectors=context.encode(rows),
            log_q=self._log_q(context, positives, pairs),
            is_masked=context.is_seen(rows) | self._same_cell(context, pairs),
            rows=rows,
            num_encoded=len(rows),
        )
        return [drawn, self._interpolate_simple(context, drawn)] if self.config.virtual else [drawn]

    def hard(self, context: StepContext, rng: np.random.Generator) -> list[SampledNegatives]:
        """Draw for each row from its positive's cluster, outside its cell.

        returns  the drawn [batch, hard], and one virtual negative for each of them
        """
        positives = _array(context.positive_rows)
        chosen = self.clusters.hard(positives, self.config.hard, rng)  # [batch, hard]
        distinct, inverse = np.unique(chosen, return_inverse=True)
        device = context.positive_rows.device
        encoded = context.encode(torch.from_numpy(distinct).long().to(device))
        vectors = encoded[torch.from_numpy(inverse.reshape(chosen.shape)).to(device)]
        rows = torch.from_numpy(chosen).long().to(device)
        drawn = SampledNegatives(
            vectors=vectors,
            log_q=self._log_q(context, positives, chosen) - self._hard_log_weight(context.step),
            is_masked=context.is_seen(rows) | self._same_cell(context, chosen),
            rows=rows,
            num_encoded=len(distinct),
        )
        return [drawn, self._interpolate_hard(context, drawn)] if self.config.virtual else [drawn]

    def _interpolate_simple(
        self, context: StepContext, pairs: SampledNegatives
    ) -> SampledNegatives:
        """Mix the two of each pair, twice, at shares drawn anew; [count, width]."""
        first, second = pairs.vectors[0::2], pairs.vectors[1::2]
        count, device = len(pairs.vectors), pairs.vectors.device
        share = draw_share((count,), 0, 1, context.rng, device)
        masked = pairs.is_masked[:, 0::2] | pairs.is_masked[:, 1::2]
        log_q = (pairs.log_q[..., 0::2] + pairs.log_q[..., 1::2]) / 2  # of both ends: ours
        mixed = interpolate_simple(first.repeat(2, 1), second.repeat(2, 1), share)
        return self._virtual(mixed, torch.cat([log_q, log_q], dim=-1), masked.repeat(1, 2))

    def _interpolate_hard(self, context: StepContext, drawn: SampledNegatives) -> SampledNegatives:
        """Move each hard negative along the line through its positive; [batch, hard, width]."""
        low, high = self.config.alpha_min, self.config.alpha_max
        shape = tuple(drawn.is_masked.shape)
        share = draw_share(shape, low, high, context.rng, drawn.vectors.device)
        positives = context.positives
        if self.config.detach_positive:
            positives = positives.detach()
        moved = interpolate_hard(positives, drawn.vectors, share)
        return self._virtual(moved, drawn.log_q, drawn.is_masked)

    def _virtual(self, mixed: Tensor, log_q: Tensor, is_masked: Tensor) -> SampledNegatives:
        """Make negatives of mixed rows, on the unit sphere and weighted as configured."""
        return SampledNegatives(
            vectors=normalize_virtual(mixed) if self.config.normalize_virtual else mixed,
            log_q=log_q - self.config.virtual_log_weight,
            is_masked=is_masked,
        )

    def _hard_log_weight(self, step: int) -> float:
        """Return what is added to hard negatives' scores: from nearly nothing to all of it."""
        grown = min(1.0, (step + 1) / max(1, self.config.hard_warmup_steps))
        return self.config.hard_log_weight + math.log(grown)

    def _log_q(self, context: StepContext, positives: Rows, rows: Rows) -> Tensor:
        """Return the subtracted part of the log of each row's expected count.

        rows     [n] or [batch, n]
        returns  as rows; [batch, n] where hard ones are drawn, from a distribution of each row

        An item may come with the batch, as an easy one of it and as a hard one of the row: the
        counts are added. Where no part is subtracted, nothing is computed.
        """
        if not self.config.log_q_share:
            return context.queries.new_zeros(rows.shape)
        flat = rows.reshape(-1)
        expected: NDArray[np.float64] = np.zeros(len(flat))
        if self.config.easy:
            expected += self.config.easy * self.clusters.shared_chance(positives, flat)
        if self.config.in_batch:
            expected += len(positives) * context.target_share.cpu().numpy()[flat]
        expected = expected.reshape(rows.shape)
        if self.config.hard:
            expected = expected + self.config.hard * self.clusters.hard_chance(positives, rows)
        log_q = torch.from_numpy(np.log(np.maximum(expected, TINY)).astype(np.float32))
        return self.config.log_q_share * log_q.to(context.queries.device)

    def _same_cell(self, context: StepContext, rows: Rows) -> Tensor:
        same = self.clusters.same_cell(_array(context.positive_rows), rows)
        return torch.from_numpy(same).to(context.queries.device)


TINY = 1e-12  # an expected count of 0 belongs to a row that is masked


def _array(rows: Tensor) -> Rows:
    return rows.cpu().numpy().astype(np.int32)


def _numpy_rng(context: StepContext) -> np.random.Generator:
    """Return a numpy generator that follows the step's own."""
    return np.random.default_rng(int(torch.randint(2**62, (1,), generator=context.rng)))


def _chain(parts: list[SampledNegatives]) -> SampledNegatives:
    """Chain sets of negatives; the first has log q of the positives, all what they cost."""
    chained = None
    for part in reversed(parts):
        chained = replace(part, next_set=chained)
    assert chained is not None  # the configuration refuses a sampler that draws nothing
    return replace(chained, num_encoded=sum(part.num_encoded for part in parts))
