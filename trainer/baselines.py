"""Baselines without a training loop: popularity and EASE."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from index.arrays import Rows
from trainer.config import EvaluationConfig
from trainer.data.interactions import Cases, ItemLists
from trainer.metrics import DEPTH, EvaluationSet

CHUNK = 512  # cases scored per matrix product


def rank_baselines(evaluated: EvaluationSet, config: EvaluationConfig) -> dict[str, Rows]:
    """Rank by popularity, and by EASE up to `ease_items_limit` items."""
    cases, num_items = evaluated.cases, len(evaluated.counts)
    ranked = {"popularity": rank_by_popularity(evaluated.counts, cases)}
    if num_items <= config.ease_items_limit:
        ranked["ease"] = rank_by_ease(evaluated.train, cases, num_items, config.ease_lambda)
    return ranked


def rank_by_popularity(counts: NDArray[np.int64], cases: Cases) -> Rows:
    """Rank unseen items by their number of training positives; [cases, DEPTH]."""
    order = np.argsort(-counts, kind="stable").astype(np.int32)
    ranked = np.full((len(cases.user_rows), DEPTH), -1, dtype=np.int32)
    for case in range(len(cases.user_rows)):
        seen = cases.histories.get(case)
        head = order[: DEPTH + len(seen)]
        kept = head[~np.isin(head, seen)][:DEPTH]
        ranked[case, : len(kept)] = kept
    return ranked


def rank_by_ease(train: ItemLists, cases: Cases, num_items: int, ridge: float) -> Rows:
    """Rank unseen items by EASE, fitted on the training histories; [cases, DEPTH].

    Args:
        train: training history of every user.
        cases: cases to rank for.
        num_items: size of the catalogue.
        ridge: lambda, added to the diagonal of the items x items Gram matrix.

    Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.
    """
    interactions = _matrix(train, num_items)
    gram = (interactions.T @ interactions).toarray() + ridge * np.eye(num_items, dtype=np.float32)
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    ranked = np.full((len(cases.user_rows), DEPTH), -1, dtype=np.int32)
    histories = _matrix(cases.histories, num_items)
    for start in range(0, len(ranked), CHUNK):
        seen = histories[start : start + CHUNK]
        scores = seen @ weights
        scores[seen.nonzero()] = -np.inf
        best = _best(scores)
        ranked[start : start + CHUNK, : best.shape[1]] = best
    return ranked


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
