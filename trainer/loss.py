"""From a training batch to its loss: sampled softmax with logQ correction."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import RunConfig
from trainer.samplers.base import SampledNegatives, Sampler, StepContext
from trainer.towers import Towers
from trainer.training_data import TrainingBatch, TrainingData


class BatchLoss:
    """The loss of a training batch, and all that it is computed from."""

    def __init__(
        self, towers: Towers, data: TrainingData, sampler: Sampler, config: RunConfig
    ) -> None:
        self.towers, self.data, self.sampler, self.config = towers, data, sampler, config

    def __call__(self, batch: TrainingBatch, step: int) -> Tensor:
        """Encode the batch, sample negatives, and return the mean cross-entropy.

        step  counted from 0 over the whole run; all randomness follows from it and the seed
        """
        data, towers, device = self.data, self.towers, self.data.device
        rng = torch.Generator().manual_seed(data.loader.seed * 1_000_003 + step)
        users = torch.from_numpy(batch.user_rows).long().to(device)

        def encode(rows: Tensor) -> Tensor:
            is_id_hidden = torch.rand(len(rows), generator=rng) < self.config.towers.id_dropout
            return data.features.encode(towers.item, rows.to(device), is_id_hidden.to(device))

        # Towers: each distinct item of histories and positives is encoded once.
        history_rows = batch.history_rows[batch.mask]
        needed = np.concatenate([history_rows, batch.positive_rows])
        distinct, places = np.unique(needed, return_inverse=True)
        vectors = encode(torch.from_numpy(distinct).long())
        history_places, positive_places = (
            torch.from_numpy(places).to(device).tensor_split([len(history_rows)])
        )
        mask = torch.from_numpy(batch.mask).to(device)
        positives = vectors[positive_places]
        queries = towers.user.read(vectors, history_places, mask)
        context = StepContext(
            user_rows=users,
            positive_rows=torch.from_numpy(batch.positive_rows).long().to(device),
            positives=positives,
            queries=queries,
            target_share=data.target_share,
            encode=encode,
            is_seen=lambda rows: data.seen.of(users, rows),
            step=step,
            rng=rng,
        )
        # Negatives: false ones (seen by the user, of the positive's cell) come masked.
        negatives = self.sampler(context)
        # Softmax of the positive among them: scores / temperature - log q.
        training = self.config.training
        temperature, log_q_share = training.temperature, training.log_q_share
        return sampled_softmax(queries, positives, negatives, temperature, log_q_share)


def sampled_softmax(
    queries: Tensor,
    positives: Tensor,
    negatives: SampledNegatives,
    temperature: float,
    log_q_share: float,
) -> Tensor:
    """Return the mean cross-entropy of the positive among its negatives.

    queries      [batch, dim]  unit norm
    positives    [batch, dim]  unit norm
    temperature  above 0; scores are divided by it first, log q is subtracted second
    log_q_share  0..1, the part of log q that is subtracted: 1 estimates the full softmax,
                 0 keeps the proposal distribution of the sampler

    Source: sampled softmax with logQ correction (Yi et al., RecSys 2019). A popular item is
    drawn often, has a high log q, and so weighs less as a negative. Serving corrects nothing.
    """
    own = (queries * positives).sum(dim=-1) / temperature  # [batch]
    if negatives.positive_log_q is not None:
        own = own - log_q_share * negatives.positive_log_q
    columns = [own[:, None]]
    for drawn in negatives.sets():
        others = scores_of(queries, drawn.vectors) / temperature  # [batch, n]
        others = others - log_q_share * drawn.log_q
        columns.append(others.masked_fill(drawn.is_masked, -torch.inf))
    logits = torch.cat(columns, dim=1)  # [batch, 1 + n]
    return functional.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.long))


def scores_of(queries: Tensor, vectors: Tensor) -> Tensor:
    """Score shared vectors [n, dim] or a row's own [batch, n, dim]; [batch, n]."""
    if vectors.ndim == 2:
        return queries @ vectors.T
    return (vectors @ queries[:, :, None]).squeeze(-1)
