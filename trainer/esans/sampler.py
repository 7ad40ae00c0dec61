"""ESANS sampler: easy and hard negatives from a cluster map (MSAC), and virtual ones (EDIS).

A plain reading of the paper: easy negatives come in pairs and are shared by the batch, hard ones
are sampled per row, and each has a virtual negative. By default no log q is subtracted: all of
it would cancel the proposal distribution that the map defines. With in-batch negatives
(`in_batch`), `log_q_share` should be 1 instead: all sources together have one proposal
distribution, a mixture, and subtracting its log q estimates the full softmax.
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
    interpolate_hard,
    interpolate_simple,
    normalize_virtual,
    sample_alpha,
)
from trainer.samplers.base import SampledNegatives, StepContext
from trainer.samplers.config import EsansConfig
from trainer.samplers.simple import sample_in_batch


@dataclass(frozen=True)
class EsansSampler:
    """Samples from a cluster map whose rows are those of the catalogue.

    For a positive i, with level-1 centroids C and cluster temperature T:
      - easy: a cluster k != c1(i) with P(k | c1(i)) = softmax over k of (-|C_k - C_c1(i)| / T),
        then an item uniformly in it;
      - hard: uniform over {j : c1(j) = c1(i), c2(j) != c2(i)}, or easy where that is empty.

    Source: ESANS (Xing et al., WWW 2025): MSAC selects the items, EDIS interpolates. Ours: the
    batch shares its easy negatives, so that their proposal distribution is the mean over its
    positives; seen items and items of the positive's cell are masked, whatever their source.
    """

    clusters: ClusterMap
    config: EsansConfig

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Sample easy and hard negatives, and interpolate."""
        rng = _numpy_rng(context)
        sets = []
        if self.config.in_batch:
            sets.append(self.sample_from_batch(context))
        if self.config.easy:
            sets += self.sample_easy(context, rng)
        if self.config.hard:
            sets += self.sample_hard(context, rng)
        return _chain(sets)

    def sample_from_batch(self, context: StepContext) -> SampledNegatives:
        """Use in-batch negatives with same-cell masking."""
        negatives, positives = sample_in_batch(context), _to_numpy(context.positive_rows)
        log_q = self._log_q(context, positives, positives)
        return replace(
            negatives,
            log_q=log_q,
            is_masked=negatives.is_masked | self._is_same_cell(context, positives),
            positive_log_q=log_q if log_q.ndim == 1 else log_q.diagonal(),
        )

    def sample_easy(self, context: StepContext, rng: np.random.Generator) -> list[SampledNegatives]:
        """Sample easy pairs, each in one cluster, shared by the batch.

        Returns:
            The pairs [easy] and, if configured, as many virtual negatives.
        """
        positives = _to_numpy(context.positive_rows)
        anchors = rng.choice(positives, self.config.easy // 2)
        pairs = self.clusters.sample_easy_pairs(anchors, rng).reshape(-1)  # [easy], pair after pair
        rows = torch.from_numpy(pairs).long().to(context.positive_rows.device)
        negatives = SampledNegatives(
            vectors=context.encode(rows),
            log_q=self._log_q(context, positives, pairs),
            is_masked=context.is_seen(rows) | self._is_same_cell(context, pairs),
            rows=rows,
            num_encoded=len(rows),
        )
        if not self.config.virtual:
            return [negatives]
        return [negatives, self._interpolate_simple(context, negatives)]

    def sample_hard(self, context: StepContext, rng: np.random.Generator) -> list[SampledNegatives]:
        """Sample for each row from the cluster of its positive, outside its cell.

        Returns:
            The negatives [batch, hard] and, if configured, as many virtual ones.
        """
        positives = _to_numpy(context.positive_rows)
        sampled = self.clusters.sample_hard(positives, self.config.hard, rng)  # [batch, hard]
        distinct, inverse = np.unique(sampled, return_inverse=True)
        device = context.positive_rows.device
        encoded = context.encode(torch.from_numpy(distinct).long().to(device))
        vectors = encoded[torch.from_numpy(inverse.reshape(sampled.shape)).to(device)]
        rows = torch.from_numpy(sampled).long().to(device)
        negatives = SampledNegatives(
            vectors=vectors,
            log_q=self._log_q(context, positives, sampled) - self._hard_log_weight(context.step),
            is_masked=context.is_seen(rows) | self._is_same_cell(context, sampled),
            rows=rows,
            num_encoded=len(distinct),
        )
        if not self.config.virtual:
            return [negatives]
        return [negatives, self._interpolate_hard(context, negatives)]

    def _interpolate_simple(
        self, context: StepContext, pairs: SampledNegatives
    ) -> SampledNegatives:
        """Interpolate twice within each pair, with independent weights; [easy, dim]."""
        first, second = pairs.vectors[0::2], pairs.vectors[1::2]
        count, device = len(pairs.vectors), pairs.vectors.device
        alpha = sample_alpha((count,), 0, 1, context.rng, device)
        is_masked = pairs.is_masked[:, 0::2] | pairs.is_masked[:, 1::2]
        log_q = (pairs.log_q[..., 0::2] + pairs.log_q[..., 1::2]) / 2  # mean of both ends: ours
        vectors = interpolate_simple(first.repeat(2, 1), second.repeat(2, 1), alpha)
        return self._virtual(vectors, torch.cat([log_q, log_q], dim=-1), is_masked.repeat(1, 2))

    def _interpolate_hard(
        self, context: StepContext, negatives: SampledNegatives
    ) -> SampledNegatives:
        """Interpolate between each hard negative and its positive; [batch, hard, dim]."""
        low, high = self.config.alpha_min, self.config.alpha_max
        shape = tuple(negatives.is_masked.shape)
        alpha = sample_alpha(shape, low, high, context.rng, negatives.vectors.device)
        positives = context.positives
        if self.config.detach_positive:
            positives = positives.detach()
        vectors = interpolate_hard(positives, negatives.vectors, alpha)
        return self._virtual(vectors, negatives.log_q, negatives.is_masked)

    def _virtual(self, vectors: Tensor, log_q: Tensor, is_masked: Tensor) -> SampledNegatives:
        """Build virtual negatives, normalised and weighted as configured."""
        return SampledNegatives(
            vectors=normalize_virtual(vectors) if self.config.normalize_virtual else vectors,
            log_q=log_q - self.config.virtual_log_weight,
            is_masked=is_masked,
        )

    def _hard_log_weight(self, step: int) -> float:
        """Return the log weight of hard negatives, part of their log q; grows in the warm-up."""
        progress = min(1.0, (step + 1) / max(1, self.config.hard_warmup_steps))
        return self.config.hard_log_weight + math.log(progress)

    def _log_q(self, context: StepContext, positives: Rows, rows: Rows) -> Tensor:
        """Return log_q_share times the log of the expected count of each item row.

        The expected counts of all configured sources are added: batch * target_share(j) in the
        batch, easy * mean over positives of P(c1(j) | c1(i_b)) / size(c1(j)), and hard * q_hard
        of the row. Nothing is computed if `log_q_share` is 0.

        Args:
            context: of the step.
            positives: [batch], item rows.
            rows: [n] or [batch, n], item rows of the negatives.

        Returns:
            The shape of `rows`; [batch, n] with hard negatives, whose distribution is per row.
        """
        if not self.config.log_q_share:
            return context.queries.new_zeros(rows.shape)
        flat = rows.reshape(-1)
        expected: NDArray[np.float64] = np.zeros(len(flat))
        if self.config.easy:
            expected += self.config.easy * self.clusters.mean_easy_probability(positives, flat)
        if self.config.in_batch:
            expected += len(positives) * context.target_share.cpu().numpy()[flat]
        expected = expected.reshape(rows.shape)
        if self.config.hard:
            expected = expected + self.config.hard * self.clusters.hard_probability(positives, rows)
        log_q = torch.from_numpy(np.log(np.maximum(expected, TINY)).astype(np.float32))
        return self.config.log_q_share * log_q.to(context.queries.device)

    def _is_same_cell(self, context: StepContext, rows: Rows) -> Tensor:
        is_same = self.clusters.is_same_cell(_to_numpy(context.positive_rows), rows)
        return torch.from_numpy(is_same).to(context.queries.device)


TINY = 1e-12  # only masked items have an expected count of 0


def _to_numpy(rows: Tensor) -> Rows:
    return rows.cpu().numpy().astype(np.int32)


def _numpy_rng(context: StepContext) -> np.random.Generator:
    """Return a NumPy generator seeded by the generator of the step."""
    return np.random.default_rng(int(torch.randint(2**62, (1,), generator=context.rng)))


def _chain(sets: list[SampledNegatives]) -> SampledNegatives:
    """Chain sets of negatives; the first holds log q of the positives and the total cost."""
    chained = None
    for negatives in reversed(sets):
        chained = replace(negatives, next_set=chained)
    assert chained is not None  # the configuration rejects a sampler without negatives
    return replace(chained, num_encoded=sum(negatives.num_encoded for negatives in sets))
