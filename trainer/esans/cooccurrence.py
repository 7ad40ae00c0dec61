"""The behavioural modality: learned from which items occur together in training."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from index.arrays import Floats
from trainer.data.interactions import ItemLists

NEWEST = 200  # items of a user that are paired: the pairs grow with the square
PAIRS_LIMIT = 100_000_000  # above it, users are sampled: it bounds memory and time


def behavioural_features(histories: ItemLists, num_items: int, width: int, seed: int) -> Floats:
    """Learn a row per item from the histories (of training, nothing else).

    returns  [items, width or fewer]  all NaN for an item that is never taken with another

    Truncated SVD of the positive PMI of items within histories, U sqrt(S). Source: the ESANS
    paper, MSAC, names behaviour as a modality; this way of making it is ours.
    """
    together = count_cooccurrences(histories, num_items, seed)
    association = positive_pmi(together)
    components = min(width, num_items)
    left, strengths, _ = randomized_svd(association, components, random_state=seed)
    rows: Floats = (left * np.sqrt(strengths)).astype(np.float32)
    rows[np.diff(association.indptr) == 0] = np.nan
    return rows


def count_cooccurrences(
    histories: ItemLists, num_items: int, seed: int, pairs_limit: int = PAIRS_LIMIT
) -> sparse.csr_array:
    """Count the users who took both of two items; [items, items], 0 on the diagonal.

    Each user's newest 200 items count. Where the pairs would be more than the limit, a seeded
    sample of the users does.
    """
    lengths = np.diff(histories.offsets)
    users = np.repeat(np.arange(len(lengths)), lengths)
    places_from_end = histories.offsets[users + 1] - np.arange(len(users))
    chosen = _sampled(np.minimum(lengths, NEWEST), seed, pairs_limit)
    is_kept = (places_from_end <= NEWEST) & chosen[users]
    taken = sparse.csr_array(
        (
            np.ones(int(is_kept.sum()), dtype=np.float32),
            (users[is_kept], histories.item_rows[is_kept]),
        ),
        shape=(len(lengths), num_items),
    )
    together = (taken.T @ taken).tocsr()
    together.setdiag(0)
    together.eliminate_zeros()
    return together


def positive_pmi(together: sparse.csr_array) -> sparse.csr_array:
    """Return max(0, log(P(i, j) / (P(i) P(j)))) of co-occurrence counts; [items, items]."""
    pairs = together.tocoo()
    totals = np.asarray(together.sum(axis=1), dtype=np.float64).reshape(-1)
    expected = totals[pairs.row] * totals[pairs.col] / max(totals.sum(), 1)
    values = np.log(pairs.data / expected).astype(np.float32)
    is_positive = values > 0
    kept = (pairs.row[is_positive], pairs.col[is_positive])
    return sparse.csr_array((values[is_positive], kept), shape=together.shape)


def _sampled(lengths: NDArray[np.int64], seed: int, pairs_limit: int) -> NDArray[np.bool_]:
    """Choose users in random order while their pairs stay within the limit; [users]."""
    order = np.random.default_rng([seed, 2]).permutation(len(lengths))
    is_within = np.cumsum(lengths[order] ** 2) <= pairs_limit
    chosen = np.zeros(len(lengths), dtype=np.bool_)
    chosen[order[is_within]] = True
    return chosen
