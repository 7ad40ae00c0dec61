"""One step: from a batch to its loss. Items are encoded once each, however often they occur."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from trainer.batches import Batch
from trainer.course import Course
from trainer.samplers.interface import Context
from trainer.towers import Towers


def context_of(
    course: Course, towers: Towers, batch: Batch, step: int, dropout: float
) -> Context:
    """Encode a batch: everything that its negatives and its loss are made from.

    dropout  share of items whose id is hidden
    """
    rng = torch.Generator().manual_seed(course.batches.seed * 1_000_003 + step)
    users, positive_rows = (
        torch.from_numpy(rows).long().to(course.device)
        for rows in (batch.user_rows, batch.positive_rows)
    )

    def encode(rows: Tensor) -> Tensor:
        hidden = torch.rand(len(rows), generator=rng) < dropout
        return course.catalogue.encode(towers.item, rows, hidden.to(course.device))

    mask = torch.from_numpy(batch.mask).to(course.device)
    history, positives = encode_once(batch, mask, encode)
    return Context(
        user_rows=users,
        positive_rows=positive_rows,
        positives=positives,
        queries=towers.user(history, mask),
        target_share=course.target_share,
        encode=encode,
        is_known=lambda rows: course.known.of(users, rows),
        step=step,
        rng=rng,
    )


def encode_once(
    batch: Batch, mask: Tensor, encode: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Encode each distinct item of a batch once, and lay the vectors out.

    returns  histories [batch, length, width], 0 where masked; positives [batch, width]
    """
    needed = np.concatenate([batch.history_rows[batch.mask], batch.positive_rows])
    distinct, inverse = np.unique(needed, return_inverse=True)
    vectors = encode(torch.from_numpy(distinct).long().to(mask.device))
    places = torch.from_numpy(inverse).to(mask.device)
    history_count = len(needed) - len(batch.positive_rows)
    history = vectors.new_zeros(*mask.shape, vectors.shape[1])
    history[mask] = vectors[places[:history_count]]
    return history, vectors[places[history_count:]]
