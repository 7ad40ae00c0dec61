"""Baselines without a training loop: popularity and EASE."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from index.arrays import Rows
from trainer.config import EvaluationConfig
from trainer.data.interactions import Cases, ItemLists
from trainer.metrics import DEPTH, EaseData, EvaluationSet, case_recalls, rank_targets

CHUNK = 512  # cases ranked at once
GRID_ITEMS = 3_000  # most popular items that lambda is chosen on: the cost is cubic
GRID_COUNT = 50  # lambda is chosen by recall@50


def rank_baselines(
    evaluated: EvaluationSet, ease_lambda: float | None
) -> Iterator[tuple[str, Rows]]:
    """Rank by popularity, and by EASE unless its lambda is None; yield name, [cases, DEPTH]."""
    cases = evaluated.cases
    yield "popularity", rank_by_popularity(evaluated.counts, cases)
    if evaluated.ease is not None and ease_lambda is not None:
        gram = build_gram(evaluated.ease.train, len(evaluated.counts))
        yield "ease", rank_by_ease(gram, cases, ease_lambda)


def rank_by_popularity(counts: NDArray[np.int64], cases: Cases) -> Rows:
    """Rank unseen items by their number of training positives, ties by row; [cases, DEPTH]."""
    order = np.argsort(-counts, kind="stable").astype(np.int32)
    positions = np.empty_like(order)
    positions[order] = np.arange(len(order))
    order = np.append(order, np.full(DEPTH, -1, dtype=np.int32))
    ranked = np.empty((len(cases.user_rows), DEPTH), dtype=np.int32)
    for start in range(0, len(ranked), CHUNK):
        offsets = cases.histories.offsets[start : start + CHUNK + 1]
        seen = positions[cases.histories.item_rows[offsets[0] : offsets[-1]]]
        unseen = _unseen_positions(seen, offsets - offsets[0])
        ranked[start : start + CHUNK] = order[np.minimum(unseen, len(counts))]
    return ranked


def _unseen_positions(seen: Rows, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first DEPTH positions in the order of popularity that each case has not seen.

    Position k of the unseen ones is k plus the seen ones before it. Of a case's seen positions in
    ascending order, the i-th precedes the unseen position k if it is at most k + i.

    Args:
        seen: seen positions of all cases.
        offsets: [cases + 1], start of each case's positions in `seen`.
    """
    lengths = np.diff(offsets)
    case_of = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((seen, case_of))
    first = seen[order] - (np.arange(len(seen)) - offsets[case_of])
    is_near = first < DEPTH
    cells = case_of[is_near] * DEPTH + first[is_near]
    taken_at = np.bincount(cells, minlength=len(lengths) * DEPTH).reshape(-1, DEPTH)
    before: NDArray[np.int64] = taken_at.cumsum(axis=1)
    return before + np.arange(DEPTH)


def choose_ease_lambda(evaluated: EvaluationSet, config: EvaluationConfig) -> float | None:
    """Choose lambda by recall@50 on validation; None if there are too many items for EASE.

    A catalogue of more than GRID_ITEMS items is reduced to its most popular ones.
    """
    if evaluated.ease is None or len(config.ease_lambdas) == 1:
        return None if evaluated.ease is None else config.ease_lambdas[0]
    kept = np.sort(np.argsort(-evaluated.counts, kind="stable")[:GRID_ITEMS])
    reduced = reduce_catalogue(evaluated.ease, kept, len(evaluated.counts))
    if not len(reduced.validation.user_rows):  # no held-out item has training positives
        return config.ease_lambdas[0]
    gram, recalls = build_gram(reduced.train, len(kept)), {}
    for ridge in config.ease_lambdas:
        ranked = rank_by_ease(gram, reduced.validation, ridge)
        ranks = rank_targets(ranked, reduced.validation)
        recalls[ridge] = case_recalls(ranks, GRID_COUNT).mean()
    return max(recalls, key=lambda ridge: recalls[ridge])


def reduce_catalogue(data: EaseData, kept: NDArray[np.int64], num_items: int) -> EaseData:
    """Reduce histories and targets to the items `kept`, and cases to those that have both."""
    train, histories, targets = (
        ItemLists(lists.indptr.astype(np.int64), lists.indices.astype(np.int32))
        for whole in (data.train, data.validation.histories, data.validation.targets)
        for lists in (_matrix(whole, num_items)[:, kept],)
    )
    chosen = np.flatnonzero((np.diff(histories.offsets) > 0) & (np.diff(targets.offsets) > 0))
    users = data.validation.user_rows[chosen]
    return EaseData(train, Cases(users, histories.select(chosen), targets.select(chosen)))


def build_gram(train: ItemLists, num_items: int) -> Tensor:
    """Build the items x items Gram matrix of the training histories."""
    interactions = _matrix(train, num_items)
    return torch.from_numpy((interactions.T @ interactions).toarray())


def rank_by_ease(gram: Tensor, cases: Cases, ridge: float) -> Rows:
    """Rank unseen items by EASE; [cases, DEPTH].

    Args:
        gram: [items, items], see `build_gram`.
        cases: cases to rank for.
        ridge: lambda, added to the diagonal of the Gram matrix.

    Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.
    """
    weights = ease_weights(gram, ridge)
    ranked = np.full((len(cases.user_rows), DEPTH), -1, dtype=np.int32)
    histories = _matrix(cases.histories, len(gram))
    for start in range(0, len(ranked), CHUNK):
        seen = histories[start : start + CHUNK]
        scores = seen @ weights
        scores[seen.nonzero()] = -np.inf
        best = _best(scores)
        ranked[start : start + CHUNK, : best.shape[1]] = best
    return ranked


def ease_weights(gram: Tensor, ridge: float) -> NDArray[np.float32]:
    """Compute the item-item weights of EASE; the diagonal is 0."""
    factor, failure = torch.linalg.cholesky_ex(_regularise(gram.clone(), ridge))
    if failure:  # counts too large beside lambda for float32
        factor = torch.linalg.cholesky(_regularise(gram.double(), ridge))
    inverse = torch.cholesky_inverse(factor, out=factor)
    inverse.div_(-inverse.diagonal().clone()).fill_diagonal_(0)
    return inverse.float().numpy()


def _regularise(gram: Tensor, ridge: float) -> Tensor:
    """Add lambda to the diagonal, in place."""
    gram.diagonal().add_(ridge)
    return gram


def _matrix(histories: ItemLists, num_items: int) -> csr_array:
    """Return the histories as a sparse 0/1 matrix [users, items]."""
    values = np.ones(len(histories.item_rows), dtype=np.float32)
    shape = (len(histories.offsets) - 1, num_items)
    return csr_array((values, histories.item_rows, histories.offsets), shape=shape)


def _best(scores: NDArray[np.float32]) -> Rows:
    """Return the top items of each row of scores, best first, padded with -1."""
    count = min(DEPTH, scores.shape[1])
    best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    values = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    is_seen = np.isneginf(np.take_along_axis(values, order, axis=1))
    return np.where(is_seen, -1, best).astype(np.int32)
