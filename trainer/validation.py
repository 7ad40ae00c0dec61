"""Exact ranking of all items by the towers, in one sweep of the catalogue.

Items are encoded, scored for all cases and discarded block by block, so the vectors of the whole
catalogue are never held.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.arrays import Rows
from index.encoders import pad_histories
from trainer.data.interactions import Cases, ItemLists
from trainer.metrics import case_recalls, rank_targets
from trainer.towers import UserTower

VALIDATION_COUNT = 50
BLOCK_SCORES = 10_000_000  # scores per block of items: 40 MB
BLOCK_ITEMS = 4_096  # maximum size of a block
FIRST_BLOCK_ITEMS = 256  # nothing of it can be skipped yet; each block is twice the one before
CHUNK = 1_024  # histories encoded at once
ROW_MASK = 2**32 - 1

Encode = Callable[[Tensor], Tensor]  # item rows [n] -> vectors [n, dim]


def validation_recall(tower: UserTower, encode: Encode, num_items: int, cases: Cases) -> float:
    """Compute exact recall@50 over all unseen items, for early stopping.

    Args:
        tower: user tower.
        encode: item tower; encodes item rows.
        num_items: size of the catalogue.
        cases: validation cases.

    Raises:
        FloatingPointError: an item vector is not finite.
    """
    ranked = rank_unseen(tower, encode, num_items, cases.histories, VALIDATION_COUNT)
    ranks = rank_targets(ranked, cases)
    return float(case_recalls(ranks, VALIDATION_COUNT).mean())


@torch.no_grad()
def rank_unseen(
    tower: UserTower, encode: Encode, num_items: int, histories: ItemLists, count: int
) -> Rows:
    """Rank all items without the history's own; ties go by row.

    Returns:
        [histories, count], best first, padded with -1.

    Raises:
        FloatingPointError: an item vector is not finite.
    """
    cases = range(len(histories.offsets) - 1)
    queries = torch.cat(
        [
            encode_histories(tower, encode, [histories.get(case) for case in cases[i : i + CHUNK]])
            for i in cases[::CHUNK]
        ]
    )
    seen_rows, seen_cases = _sort_by_item(histories)
    best = _pack(queries.new_full((len(queries), count), -torch.inf), ROW_MASK)
    for first, last in _blocks(num_items, len(queries)):
        vectors = encode(torch.arange(first, last, device=queries.device))
        if not torch.isfinite(vectors).all():
            raise FloatingPointError("the item vectors are not finite")
        scores = queries @ vectors.T
        start, end = np.searchsorted(seen_rows, (first, last))
        scores[seen_cases[start:end], seen_rows[start:end] - first] = -torch.inf
        best = _merge(best, scores, first)
    rows = (ROW_MASK - (best & ROW_MASK)).masked_fill(torch.isneginf(_unpack(best)), -1)
    return rows.cpu().numpy().astype(np.int32)


def encode_histories(tower: UserTower, encode: Encode, histories: Sequence[Rows]) -> Tensor:
    """Encode the newest items of each history to query vectors; [histories, dim]."""
    device, length = tower.positions.weight.device, len(tower.positions.weight)
    rows, mask = pad_histories([history[::-1][:length] for history in histories])
    distinct, indices = np.unique(rows, return_inverse=True)
    vectors = encode(torch.from_numpy(distinct).long().to(device))
    history = vectors[torch.from_numpy(indices.reshape(rows.shape)).to(device)]
    return tower(history, torch.from_numpy(mask).to(device))  # type: ignore[no-any-return]


def _blocks(num_items: int, num_cases: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of blocks of items, small ones first."""
    limit = max(1, min(BLOCK_ITEMS, BLOCK_SCORES // num_cases))
    first, size = 0, min(FIRST_BLOCK_ITEMS, limit)
    while first < num_items:
        last = min(first + size, num_items)
        yield first, last
        first, size = last, min(2 * size, limit)


def _sort_by_item(histories: ItemLists) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the items of all histories in ascending order, and the case of each."""
    case_of = np.repeat(np.arange(len(histories.offsets) - 1), np.diff(histories.offsets))
    order = np.argsort(histories.item_rows)
    return histories.item_rows[order].astype(np.int64), case_of[order]


def _merge(best: Tensor, scores: Tensor, first: int) -> Tensor:
    """Merge a block's scores into the best keys of each case, [cases, count], best first.

    Only scores above a case's last one are sorted: after a few blocks these are rare.
    """
    case, column = (scores > _unpack(best[:, -1:])).nonzero(as_tuple=True)
    counts = torch.bincount(case, minlength=len(best))
    position = torch.arange(len(case), device=case.device) - (counts.cumsum(0) - counts)[case]
    width = int(counts.max())
    keys = best.new_full((len(best), width), torch.iinfo(torch.int64).min)
    keys[case, position] = _pack(scores[case, column], first + column)
    return torch.cat([best, keys], dim=1).topk(best.shape[1], dim=1).values


def _pack(scores: Tensor, rows: Tensor | int) -> Tensor:
    """Pack float32 scores and their rows into int64 keys that order by (-score, row)."""
    return (_order(scores.add(0.0).view(torch.int32)).long() << 32) + (ROW_MASK - rows)


def _unpack(keys: Tensor) -> Tensor:
    """Return the scores of keys."""
    return _order((keys >> 32).int()).view(torch.float32)


def _order(bits: Tensor) -> Tensor:
    """Map the bits of floats to integers of the same order, and back."""
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
