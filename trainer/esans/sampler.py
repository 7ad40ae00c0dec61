"""ESANS sampler: easy and hard negatives from a cluster map, and virtual ones (EDIS).

By default, items of the batch, hard and, in large catalogues, easy ones are one mixture proposal
of warm items, and subtracting its log q estimates the full softmax. The variant `paper` is a plain
reading of the paper: pairs uniform in other clusters (MSAC), a hard negative per row, a virtual
one for each, and no log q, which would cancel the proposal distribution that the map defines.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.arrays import Rows
from index.cluster_layout import Doubles
from index.cluster_map import Booleans, ClusterMap
from trainer.esans.interpolation import (
    interpolate_hard,
    interpolate_simple,
    normalize_virtual,
    sample_alpha,
)
from trainer.esans.warm_proposal import WarmProposal
from trainer.samplers.base import SampledNegatives, StepContext
from trainer.samplers.config import EsansConfig


class Proposal(Protocol):
    """Proposal distribution of easy and hard negatives: a `ClusterMap` or a `WarmProposal`."""

    def sample_easy(self, positives: Rows, count: int, rng: np.random.Generator) -> Rows:
        """Sample easy negatives; [batch, count]."""

    def sample_easy_pairs(self, positives: Rows, rng: np.random.Generator) -> Rows:
        """Sample easy pairs of one cluster; [batch, 2]."""

    def sample_hard(self, positives: Rows, count: int, rng: np.random.Generator) -> Rows:
        """Sample hard negatives; [batch, count]."""

    def mean_easy_probability(self, positives: Rows, rows: Rows) -> Doubles:
        """Compute the mean probability of rows [n] over the positives; [n]."""

    def hard_probability(self, positives: Rows, rows: Rows) -> Doubles:
        """Compute the probability of rows [n] or [batch, n]; [batch, n]."""

    def is_same_cell(self, positives: Rows, rows: Rows) -> Booleans:
        """Mark rows [n] or [batch, n] that are masked as probable false negatives; [batch, n]."""


@dataclass
class EsansSampler:
    """Samples from a cluster map whose rows are those of the catalogue.

    The batch shares its easy negatives, so that their proposal distribution is the mean over
    its positives (ours). Seen items are masked, and items of the positive's cell if
    `max_cell_share` is above 0, whatever their source. For the distributions see `WarmProposal`
    and, in the variant paper, `ClusterMap`.

    log q is the log of the expected count over all sources. A shared proposal has a log q of the
    positive, too, which `training.positive_log_q` subtracts. Hard negatives depend on the
    positive, so that with them it has none.

    Source: ESANS (Xing et al., WWW 2025): MSAC selects the items, EDIS interpolates.
    """

    clusters: ClusterMap
    config: EsansConfig
    _proposal: WarmProposal | None = field(default=None, init=False, compare=False)
    _target_share: Tensor | None = field(default=None, init=False, compare=False, repr=False)

    def __call__(self, context: StepContext) -> SampledNegatives:
        """Sample easy and hard negatives, and interpolate."""
        rng, config = _numpy_rng(context), self.config
        sets, virtual = [], []
        if config.in_batch:
            sets.append(self.sample_from_batch(context))
        if self._easy_count(context):
            sets.append(self.sample_easy(context, rng))
            if config.virtual:
                virtual.append(self._interpolate_simple(context, sets[-1]))
        if config.hard:
            sets.append(self.sample_hard(context, rng))
            if config.virtual:
                virtual.append(self._interpolate_hard(context, sets[-1]))
        positive_log_q = self._positive_log_q(context, sets[0])
        if not virtual or config.variant == "paper":
            return _chain(sets + virtual, positive_log_q)
        return replace(
            _chain(sets, positive_log_q),
            own_term=_chain(virtual, positive_log_q),
            own_term_weight=config.virtual_weight,
        )

    def proposal_of(self, context: StepContext) -> Proposal:
        """Return the proposal distribution; its tables are built once per map and run."""
        if self.config.variant == "paper":
            return self.clusters
        if self._proposal is None or self._target_share is not context.target_share:
            self._target_share = context.target_share  # constant within a run
            share = self._target_share.cpu().numpy().astype(np.float64)
            self._proposal = WarmProposal(self.clusters, share, self.config)
        return self._proposal

    def sample_from_batch(self, context: StepContext) -> SampledNegatives:
        """Use targets, or warm items of targets and histories, of the batch; encodes nothing."""
        rows, vectors = context.positive_rows, context.positives
        limit = self._example_limit(context)
        if limit:
            chosen = _warm_positions(context)
            if len(chosen) > limit:
                order = torch.randperm(len(chosen), generator=context.rng)[:limit]
                chosen = chosen[order.to(chosen.device)]
            rows, vectors = context.batch_rows[chosen], context.batch_vectors[chosen]
        return SampledNegatives(
            vectors=vectors,
            log_q=self._log_q(context, _to_numpy(rows)),
            is_masked=self._is_masked(context, rows),
            rows=rows,
            source="in batch",
        )

    def sample_easy(self, context: StepContext, rng: np.random.Generator) -> SampledNegatives:
        """Sample easy negatives [easy], shared by the batch; in pairs if virtual ones follow."""
        proposal, count = self.proposal_of(context), self._easy_count(context)
        positives = rng.permutation(_to_numpy(context.positive_rows))
        if self.config.virtual:
            sampled = proposal.sample_easy_pairs(np.resize(positives, count // 2), rng)
        else:
            sampled = proposal.sample_easy(np.resize(positives, count), 1, rng)
        flat = sampled.reshape(-1)  # pair after pair
        rows = torch.from_numpy(flat).long().to(context.positive_rows.device)
        return SampledNegatives(
            vectors=context.encode(rows),
            log_q=self._log_q(context, flat),
            is_masked=self._is_masked(context, rows),
            rows=rows,
            num_encoded=len(rows),
            source="easy",
        )

    def sample_hard(self, context: StepContext, rng: np.random.Generator) -> SampledNegatives:
        """Sample for each row from the cluster of its positive, outside its cell; [batch, hard]."""
        positives = _to_numpy(context.positive_rows)
        sampled = self.proposal_of(context).sample_hard(positives, self.config.hard, rng)
        distinct, inverse = np.unique(sampled, return_inverse=True)
        device = context.positive_rows.device
        encoded = context.encode(torch.from_numpy(distinct).long().to(device))
        vectors = encoded[torch.from_numpy(inverse.reshape(sampled.shape)).to(device)]
        rows = torch.from_numpy(sampled).long().to(device)
        return SampledNegatives(
            vectors=vectors,
            log_q=self._log_q(context, sampled),
            log_weight=self._hard_log_weight(context.step),
            is_masked=self._is_masked(context, rows),
            rows=rows,
            num_encoded=len(distinct),
            source="hard",
        )

    def _interpolate_simple(
        self, context: StepContext, pairs: SampledNegatives
    ) -> SampledNegatives:
        """Interpolate twice within each pair, with independent weights; [easy, dim]."""
        ends = pairs.vectors.detach() if self.config.detach_virtual else pairs.vectors
        count, device = len(ends), ends.device
        alpha = sample_alpha((count,), 0, 1, context.rng, device)
        is_masked = pairs.is_masked[:, 0::2] | pairs.is_masked[:, 1::2]
        log_q = (pairs.log_q[..., 0::2] + pairs.log_q[..., 1::2]) / 2  # mean of both ends: ours
        vectors = interpolate_simple(ends[0::2].repeat(2, 1), ends[1::2].repeat(2, 1), alpha)
        log_q = torch.cat([log_q, log_q], dim=-1)
        return self._virtual(pairs, vectors, log_q, is_masked.repeat(1, 2))

    def _interpolate_hard(
        self, context: StepContext, negatives: SampledNegatives
    ) -> SampledNegatives:
        """Interpolate between each hard negative and its positive; [batch, hard, dim]."""
        low, high = self.config.alpha_min, self.config.alpha_max
        shape = tuple(negatives.is_masked.shape)
        alpha = sample_alpha(shape, low, high, context.rng, negatives.vectors.device)
        positives, ends = context.positives, negatives.vectors
        if self.config.detach_virtual:
            positives, ends = positives.detach(), ends.detach()
        vectors = interpolate_hard(positives, ends, alpha)
        return self._virtual(negatives, vectors, negatives.log_q, negatives.is_masked)

    def _virtual(
        self, anchors: SampledNegatives, vectors: Tensor, log_q: Tensor, is_masked: Tensor
    ) -> SampledNegatives:
        """Build virtual negatives, normalised and weighted as configured, beyond their anchors."""
        return SampledNegatives(
            vectors=normalize_virtual(vectors) if self.config.normalize_virtual else vectors,
            log_q=log_q,
            log_weight=anchors.log_weight + self.config.virtual_log_weight,
            is_masked=is_masked,
            source=f"virtual, {anchors.source}",
        )

    def _hard_log_weight(self, step: int) -> float:
        """Return the log weight of hard negatives, which grows in the warm-up."""
        return self.config.hard_log_weight + math.log(self._hard_progress(step))

    def _hard_progress(self, step: int) -> float:
        """Return the weight of hard negatives in the warm-up, as which each counts in log q."""
        return min(1.0, (step + 1) / max(1, self.config.hard_warmup_steps))

    def _positive_log_q(self, context: StepContext, first: SampledNegatives) -> Tensor | None:
        """Return log q of the positives if a shared proposal covers them, else None.

        Args:
            context: of the step.
            first: first set of negatives; its items are the positives if they are the in-batch
                negatives, and those are targets only.
        """
        config = self.config
        if config.hard:
            return None
        if config.in_batch and not self._example_limit(context):
            return first.log_q
        if not config.in_batch and (config.variant == "paper" or not config.own_cluster):
            return None
        return self._log_q(context, _to_numpy(context.positive_rows))

    def _log_q(self, context: StepContext, rows: Rows) -> Tensor:
        """Return log_q_share times the log of the expected count of each item row.

        The expected counts of all configured sources are added: those in the batch, easy times the
        mean probability over the batch's positives, and hard times the hard probability of the
        row. Nothing is computed if `log_q_share` is 0.

        Args:
            context: of the step.
            rows: [n] or [batch, n], item rows of the negatives.

        Returns:
            The shape of `rows`; [batch, n] with hard negatives, whose distribution is per row.
        """
        config, proposal = self.config, self.proposal_of(context)
        if not config.log_q_share:
            return context.queries.new_zeros(rows.shape)
        positives, flat = _to_numpy(context.positive_rows), rows.reshape(-1)
        expected: Doubles = np.zeros(len(flat))
        # virtual negatives in the softmax of their anchors count that part of the catalogue twice
        copies = 2 if config.virtual and config.variant == "paper" else 1
        easy = copies * self._easy_count(context)
        if easy:
            expected += easy * proposal.mean_easy_probability(positives, flat)
        if config.in_batch:
            expected += self._expected_in_batch(context, flat)
        expected = expected.reshape(rows.shape)
        log_q = _log(expected)
        if config.hard:
            hard = proposal.hard_probability(positives, rows)
            hard_count = copies * config.hard * self._hard_progress(context.step)
            changed = np.divmod(np.flatnonzero(hard != 0), hard.shape[1])  # np.nonzero is slow
            total = np.broadcast_to(expected, hard.shape)[changed] + hard_count * hard[changed]
            log_q = np.broadcast_to(log_q, hard.shape).copy()
            log_q[changed] = _log(total)
        return config.log_q_share * torch.from_numpy(log_q).to(context.queries.device)

    def _expected_in_batch(self, context: StepContext, rows: Rows) -> Doubles:
        """Return the expected count of item rows [n] among the in-batch negatives; [n]."""
        limit = self._example_limit(context)
        if limit:
            kept = min(1.0, limit / max(1, len(_warm_positions(context))))
            return kept * context.in_batch_probability(rows)
        share = context.target_share[torch.from_numpy(rows).to(context.target_share.device)]
        return len(context.positive_rows) * share.cpu().numpy()

    def _example_limit(self, context: StepContext) -> int:
        """Return how many items of targets and histories to use; 0 for the targets alone."""
        limit = self.config.in_batch_histories
        if limit < 0:
            limit = EXAMPLE_ITEMS if _is_large_catalogue(context) else 0
        return max(limit, len(context.positive_rows)) if limit else 0

    def _easy_count(self, context: StepContext) -> int:
        """Return how many easy negatives to sample."""
        if self.config.easy < 0:
            return EASY if _is_large_catalogue(context) else 0
        return self.config.easy

    def _is_masked(self, context: StepContext, rows: Tensor) -> Tensor:
        """Mark rows [n] or [batch, n] that the user has seen or that are in the own cell."""
        is_seen = context.is_seen(rows)
        if not self.config.max_cell_share:
            return is_seen
        positives = _to_numpy(context.positive_rows)
        is_same_cell = self.proposal_of(context).is_same_cell(positives, _to_numpy(rows))
        return is_seen | torch.from_numpy(is_same_cell).to(is_seen.device)


EASY = 256  # in a large catalogue
EXAMPLE_ITEMS = 2048  # of targets and histories, in a large catalogue
LARGE_CATALOGUE = 1_000  # items per row of the batch
TINY = 1e-12  # only masked items have an expected count of 0


def _is_large_catalogue(context: StepContext) -> bool:
    """Return whether the catalogue dwarfs the batch."""
    return len(context.target_share) > LARGE_CATALOGUE * len(context.positive_rows)


def _warm_positions(context: StepContext) -> Tensor:
    """Return the positions of warm items in `batch_rows`."""
    return (context.target_share[context.batch_rows] > 0).nonzero().flatten()


def _log(counts: Doubles) -> NDArray[np.float32]:
    return np.log(np.maximum(counts, TINY)).astype(np.float32)


def _to_numpy(rows: Tensor) -> Rows:
    return rows.cpu().numpy().astype(np.int32)


def _numpy_rng(context: StepContext) -> np.random.Generator:
    """Return a NumPy generator seeded by the generator of the step."""
    return np.random.default_rng(int(torch.randint(2**62, (1,), generator=context.rng)))


def _chain(sets: list[SampledNegatives], positive_log_q: Tensor | None) -> SampledNegatives:
    """Chain sets of negatives; the first holds log q of the positives and the total cost."""
    chained = None
    for negatives in reversed(sets):
        chained = replace(negatives, next_set=chained)
    assert chained is not None  # the configuration rejects a sampler without negatives
    num_encoded = sum(negatives.num_encoded for negatives in sets)
    return replace(chained, num_encoded=num_encoded, positive_log_q=positive_log_q)
