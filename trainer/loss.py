"""Sampled softmax loss with logQ correction."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import Precision, RunConfig
from trainer.distributed import gather_shares, share_of_rank
from trainer.samplers.base import SampledNegatives, Sampler, StepContext
from trainer.towers import Towers
from trainer.training_data import TrainingBatch, TrainingData

MEASURED_PER_EPOCH = 20  # points of the figure in the report
PADDED_TO = 512  # encoded item rows; fewer than that are padded to a multiple of 128


class BatchLoss:
    """Loss function of a training batch: encodes it, samples negatives, applies the softmax.

    The towers compute in the configured precision, scores and softmax in float32. Each rank
    encodes its share of the items and its share of the histories; all sample the same negatives.

    Attributes:
        hardness: see `measure_hardness`, of the last batch whose step is a multiple of
            `measured_every`; None after any other.
    """

    def __init__(
        self, towers: Towers, data: TrainingData, sampler: Sampler, config: RunConfig
    ) -> None:
        self.measured_every = max(1, data.loader.batches_per_epoch() // MEASURED_PER_EPOCH)
        self.hardness: dict[str, float] | None = None
        self.towers, self.data, self.sampler, self.config = towers, data, sampler, config
        is_half = should_use_bfloat16(config.training.precision, data.device)
        self.autocast = partial(torch.autocast, data.device.type, torch.bfloat16, is_half)

    def __call__(self, batch: TrainingBatch, step: int) -> Tensor:
        """Return this rank's part of the mean cross-entropy of a batch; the sum is the mean.

        Args:
            batch: the training batch.
            step: step of the run, from 0; it seeds all randomness together with the run's seed.
        """
        data, towers, device = self.data, self.towers, self.data.device
        rng = torch.Generator().manual_seed(data.loader.seed * 1_000_003 + step)
        encode = partial(self.encode_items, rng=rng)
        users = torch.from_numpy(batch.user_rows).long().to(device)
        # Towers: each distinct item of histories and positives is encoded once.
        history_rows = batch.history_rows[batch.mask]
        rows = np.concatenate([history_rows, batch.positive_rows])
        distinct, inverse = np.unique(rows, return_inverse=True)
        batch_rows = torch.from_numpy(distinct).long()
        vectors = encode(batch_rows)
        history_indices, positive_indices = (
            torch.from_numpy(inverse).to(device).tensor_split([len(history_rows)])
        )
        # Indexing would add the gradients of a repeated positive in random order.
        positives = functional.embedding(positive_indices, vectors)
        share = share_of_rank(len(users))
        mask = torch.from_numpy(batch.mask[share]).to(device)
        first = int(batch.mask[: share.start].sum())
        history_indices = history_indices[first : first + int(batch.mask[share].sum())]
        with self.autocast():
            queries = towers.user.encode_indexed(vectors, history_indices, mask)
        context = StepContext(
            user_rows=users,
            positive_rows=torch.from_numpy(batch.positive_rows).long().to(device),
            positives=positives,
            queries=gather_shares(queries, len(users)),
            batch_rows=batch_rows.to(device),
            batch_vectors=vectors,
            in_batch_probability=partial(data.in_batch_probability, len(users)),
            target_share=data.target_share,
            encode=encode,
            is_seen=lambda rows: data.seen.contains(users, rows),
            step=step,
            rng=rng,
        )
        # The sampler masks false negatives: seen items and, for ESANS, the positive's cell.
        negatives = select_rows(self.sampler(context), share)
        training = self.config.training
        # Softmax over the positive and its negatives: scores / temperature - log q.
        temperature, log_q_share = training.temperature, training.log_q_share
        is_measured = step % self.measured_every == 0
        positives = positives[share]
        self.hardness = measure_hardness(queries, positives, negatives) if is_measured else None
        loss = sampled_softmax(
            queries, positives, negatives, temperature, log_q_share, training.positive_log_q
        )
        return loss * (len(queries) / len(users))

    def encode_items(self, rows: Tensor, rng: torch.Generator) -> Tensor:
        """Encode item rows, this rank its share; the vectors of all ranks."""
        is_id_hidden = torch.rand(len(rows), generator=rng) < self.config.towers.id_dropout
        share = share_of_rank(len(rows))
        inputs = (pad(each[share]).to(self.data.device) for each in (rows, is_id_hidden))
        with self.autocast():
            vectors = self.data.features.encode(self.towers.item, *inputs)
            return gather_shares(vectors[: len(rows[share])], len(rows))


def pad(values: Tensor) -> Tensor:
    """Repeat the first value up to a multiple of PADDED_TO, or of 128 if there are few.

    The arrays of most steps then have the same sizes, and the allocator reuses their memory:
    without padding, the holes between them grow to a gigabyte at a million items.
    """
    multiple = PADDED_TO if len(values) > PADDED_TO else min(PADDED_TO, 128)
    return torch.cat([values, values[:1].expand(-len(values) % multiple)])


@torch.no_grad()
def measure_hardness(
    queries: Tensor, positives: Tensor, negatives: SampledNegatives
) -> dict[str, float]:
    """Return the mean score, -1 to 1, of the positives and of the unmasked negatives by source."""
    scores = {"positives": (queries * positives).sum(dim=-1)}
    terms = [negatives] if negatives.own_term is None else [negatives, negatives.own_term]
    for sampled in (each for term in terms for each in term.sets()):
        all_scores = score_vectors(queries, sampled.vectors)
        scores[sampled.source] = all_scores[~sampled.is_masked]
    return {source: float(values.mean()) for source, values in scores.items() if len(values)}


def select_rows(negatives: SampledNegatives, rows: slice) -> SampledNegatives:
    """Select rows of the batch from negatives; shared vectors and log q stay as they are."""
    log_q, positive_log_q = negatives.log_q, negatives.positive_log_q
    further, own_term = negatives.next_set, negatives.own_term
    return replace(
        negatives,
        vectors=negatives.vectors if negatives.vectors.ndim == 2 else negatives.vectors[rows],
        log_q=log_q if log_q.ndim == 1 else log_q[rows],
        is_masked=negatives.is_masked[rows],
        positive_log_q=None if positive_log_q is None else positive_log_q[rows],
        next_set=None if further is None else select_rows(further, rows),
        own_term=None if own_term is None else select_rows(own_term, rows),
    )


def should_use_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Return whether the towers compute in bfloat16; auto does on a GPU that has it."""
    if precision != "auto":
        return precision == "bfloat16"
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def sampled_softmax(
    queries: Tensor,
    positives: Tensor,
    negatives: SampledNegatives,
    temperature: float,
    log_q_share: float,
    positive_log_q: bool = True,
) -> Tensor:
    """Return the mean cross-entropy of the positives among their negatives; 0 for no rows.

    Negatives with a term of their own add its weight times their cross-entropy.

    Args:
        queries: [batch, dim], unit norm.
        positives: [batch, dim], unit norm.
        negatives: sampled negatives with their log q.
        temperature: softmax temperature; scores are divided by it before log q is subtracted.
        log_q_share: fraction of log q to subtract: 1 estimates the full softmax, 0 keeps the
            proposal distribution of the sampler.
        positive_log_q: whether to subtract log q from the positive's score, too.

    Source: sampled softmax with logQ correction (Yi et al., RecSys 2019). Popular items are
    sampled often, have a high log q and so weigh less as negatives. Serving applies none. The
    positive is always present, not sampled: without its log q, the gradient is that of the
    weighted loss of Khrylchenko et al. (RecSys 2025, arXiv 2507.09331).
    """
    positive_logits = (queries * positives).sum(dim=-1) / temperature  # [batch]
    if positive_log_q and negatives.positive_log_q is not None:
        positive_logits = positive_logits - log_q_share * negatives.positive_log_q
    columns = [positive_logits[:, None]]
    scaled = queries / temperature
    for sampled in negatives.sets():
        offsets = sampled.log_weight - log_q_share * sampled.log_q
        offsets = offsets.expand(sampled.is_masked.shape)
        offsets = offsets.masked_fill(sampled.is_masked, -torch.inf)
        columns.append(score_vectors(scaled, sampled.vectors, offsets))
    logits = torch.cat(columns, dim=1)  # [batch, 1 + n]
    target = torch.zeros_like(logits[:, 0], dtype=torch.long)
    loss = functional.cross_entropy(logits, target, reduction="sum") / max(1, len(logits))
    if negatives.own_term is None:
        return loss
    # Negatives without gradient do not push items, so positives must not be pulled either: all
    # items would drift towards the users.
    fixed = positives if negatives.own_term.vectors.requires_grad else positives.detach()
    own = sampled_softmax(
        queries, fixed, negatives.own_term, temperature, log_q_share, positive_log_q
    )
    return loss + negatives.own_term_weight * own


def score_vectors(queries: Tensor, vectors: Tensor, offsets: Tensor | None = None) -> Tensor:
    """Score shared vectors [n, dim] or per-query vectors [batch, n, dim]; [batch, n].

    Args:
        queries: [batch, dim].
        vectors: shared or per query.
        offsets: [batch, n], added to the scores in the same pass over them.
    """
    if vectors.ndim == 2:
        return queries @ vectors.T if offsets is None else offsets.addmm(queries, vectors.T)
    columns = queries[:, :, None]
    scores = vectors @ columns if offsets is None else offsets[:, :, None].baddbmm(vectors, columns)
    return scores.squeeze(-1)
