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
        return course.catalogue.encode(
            towers.item, rows.to(course.device), hidden.to(course.device)
        )

    mask = torch.from_numpy(batch.mask).to(course.device)
    vectors, history_places, positives = encode_once(batch, encode)
    return Context(
        user_rows=users,
        positive_rows=positive_rows,
        positives=positives,
        queries=towers.user.read(vectors, history_places, mask),
        target_share=course.target_share,
        encode=encode,
        is_known=lambda rows: course.known.of(users, rows),
        step=step,
        rng=rng,
    )


def encode_once(
    batch: Batch, encode: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Encode each distinct item of a batch once, and say where the vectors belong.

    returns  vectors [distinct, width]; places of the histories' items among them [entries],
             history after history; positives [batch, width]
    """
    needed = np.concatenate([batch.history_rows[batch.mask], batch.positive_rows])
    distinct, inverse = np.unique(needed, return_inverse=True)
    vectors = encode(torch.from_numpy(distinct).long())
    places = torch.from_numpy(inverse).to(vectors.device)
    history_count = len(needed) - len(batch.positive_rows)
    return vectors, places[:history_count], vectors[places[history_count:]]
