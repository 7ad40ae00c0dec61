"""Softmax of the positive against sampled negatives, corrected for how they were drawn."""

import torch
from torch import Tensor
from torch.nn import functional

from trainer.samplers.interface import Negatives, sets_of


def sampled_softmax(
    queries: Tensor,
    positives: Tensor,
    negatives: Negatives,
    temperature: float,
    log_q_share: float,
) -> Tensor:
    """Return the mean cross-entropy of the positive among its negatives.

    queries      [batch, width]  unit rows
    positives    [batch, width]  unit rows
    temperature  above 0; scores are divided by it first, log q is subtracted second
    log_q_share  0..1, the part of log q that is subtracted: 1 estimates the full softmax,
                 0 keeps the distribution that the sampler chose

    Source: sampled softmax with logQ correction (Yi et al., RecSys 2019). A popular item is
    drawn often, has a high log q, and so weighs less as a negative. Serving corrects nothing.
    """
    own = (queries * positives).sum(dim=-1) / temperature  # [batch]
    if negatives.positive_log_q is not None:
        own = own - log_q_share * negatives.positive_log_q
    columns = [own[:, None]]
    for drawn in sets_of(negatives):
        others = scores_of(queries, drawn.vectors) / temperature  # [batch, n]
        others = others - log_q_share * drawn.log_q
        columns.append(others.masked_fill(drawn.is_masked, -torch.inf))
    logits = torch.cat(columns, dim=1)  # [batch, 1 + n]
    return functional.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.long))


def scores_of(queries: Tensor, vectors: Tensor) -> Tensor:
    """Score shared vectors [n, width] or a row's own [batch, n, width]; [batch, n]."""
    if vectors.ndim == 2:
        return queries @ vectors.T
    return (vectors @ queries[:, :, None]).squeeze(-1)
