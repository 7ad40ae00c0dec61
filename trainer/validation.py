"""Recall during training, on the torch side: fast and exact, to tell when to stop.

What a finished model is judged by is measured elsewhere, through the files that serve.
"""

import numpy as np
import torch
from torch import Tensor

from index.encoders import padded
from trainer.data.histories import Cases, Histories
from trainer.towers import UserTower

COUNT = 50
CHUNK_SCORES = 20_000_000  # numbers per score matrix: 80 MB


@torch.no_grad()
def validation_recall(tower: UserTower, vectors: Tensor, cases: Cases) -> float:
    """Return recall@50 over all items, seen items removed.

    vectors  [items, width]  item vectors
    """
    chunk = max(1, CHUNK_SCORES // len(vectors))
    recalls = []
    for first in range(0, len(cases.user_rows), chunk):
        chosen = range(first, min(first + chunk, len(cases.user_rows)))
        queries = queries_of(tower, vectors, cases.histories, chosen)
        scores = queries @ vectors.T
        for place, case in enumerate(chosen):
            scores[place, torch.from_numpy(cases.histories.of(case)).long()] = -torch.inf
        best = scores.topk(min(COUNT, len(vectors)), dim=1).indices.cpu().numpy()
        recalls += [
            float(np.isin(cases.targets.of(case), best[place]).mean())
            for place, case in enumerate(chosen)
        ]
    return float(np.mean(recalls))


def queries_of(
    tower: UserTower, vectors: Tensor, histories: Histories, chosen: range
) -> Tensor:
    """Encode the histories of chosen cases, the newest items of each; [chosen, width]."""
    length = len(tower.positions.weight)
    rows, mask = padded([histories.of(case)[::-1][:length] for case in chosen])
    device = vectors.device
    history = vectors[torch.from_numpy(rows).long().to(device)]
    return tower(history, torch.from_numpy(mask).to(device))  # type: ignore[no-any-return]
