"""Behavioural modality: item features learned from co-occurrence in training histories."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import eigsh

from index.arrays import Floats, scratch_zeros
from trainer.data.interactions import ItemLists

MAX_ITEMS_PER_USER = 200  # newest items of a user that are paired: pairs grow with the square
TOLERANCE = 0.01  # relative, of eigenvalues; 0.001 gains nothing
DENSE_SIZE = 512  # below it all eigenvectors are computed
ROWS_AT_ONCE = 65_536  # bounds the memory of temporary arrays
MAX_PAIRS = 100_000_000  # above it users are sampled, which bounds memory and time


def build_behavioural_features(histories: ItemLists, num_items: int, dim: int, seed: int) -> Floats:
    """Build a feature row for each item from the training histories.

    The rows are U sqrt(S) of the truncated SVD of the positive PMI of item co-occurrence, which is
    symmetric: U and S follow from its eigenvectors, four times as fast as a randomized SVD.

    Args:
        histories: of training interactions only.
        num_items: size of the catalogue.
        dim: number of singular vectors.
        seed: of the first Lanczos vector and of the sample of users.

    Returns:
        [num_items, min(dim, num_items)], all NaN for an item that co-occurs with no other.

    Source: ESANS (Xing et al., WWW 2025), MSAC, uses behaviour as a modality; this
    construction is ours.
    """
    rows = scratch_zeros((num_items, min(dim, num_items)))
    rows[:] = np.nan
    present, compact = np.unique(histories.item_rows, return_inverse=True)
    paired = replace(histories, item_rows=compact.astype(np.int32))
    counts = count_cooccurrences(paired, len(present), seed)
    association = replace_by_positive_pmi(counts)
    if not association.nnz:
        return rows
    paired_items = np.flatnonzero(np.diff(association.indptr))
    vectors, values = _eigenvectors(association, rows.shape[1], seed)
    order = np.argsort(-np.abs(values), kind="stable")[: rows.shape[1]]
    scales = np.sqrt(np.abs(values[order]))
    for first in range(0, len(paired_items), ROWS_AT_ONCE):
        chunk = paired_items[first : first + ROWS_AT_ONCE]
        rows[present[chunk]] = 0
        rows[present[chunk], : len(order)] = vectors[chunk][:, order] * scales
    return rows


def _eigenvectors(matrix: sparse.csr_array, count: int, seed: int) -> tuple[Floats, Floats]:
    """Return eigenvectors [n, k] and eigenvalues; at least those of the largest absolute values."""
    size = matrix.shape[0]
    if size <= DENSE_SIZE:
        values, vectors = np.linalg.eigh(matrix.toarray())
    else:
        start = np.random.default_rng([seed, 4]).standard_normal(size, dtype=np.float32)
        values, vectors = eigsh(matrix, min(count, size - 1), v0=start, tol=TOLERANCE)
    return vectors, values


def count_cooccurrences(
    histories: ItemLists, num_items: int, seed: int, max_pairs: int = MAX_PAIRS
) -> sparse.csr_array:
    """Count the users who interacted with both of two items; [num_items, num_items], diagonal 0.

    Counts the newest 200 items of each user. Above `max_pairs` pairs it counts a seeded sample
    of the users.
    """
    lengths = np.diff(histories.offsets)
    users = np.repeat(np.arange(len(lengths)), lengths)
    positions_from_end = histories.offsets[users + 1] - np.arange(len(users))
    is_sampled = _sample_users(np.minimum(lengths, MAX_ITEMS_PER_USER), seed, max_pairs)
    is_kept = (positions_from_end <= MAX_ITEMS_PER_USER) & is_sampled[users]
    interactions = sparse.csr_array(
        (
            np.ones(int(is_kept.sum()), dtype=np.float32),
            (users[is_kept].astype(np.int32), histories.item_rows[is_kept]),
        ),
        shape=(len(lengths), num_items),
    )
    counts = (interactions.T @ interactions).tocsr()
    counts.setdiag(0)
    counts.eliminate_zeros()
    return counts


def replace_by_positive_pmi(counts: sparse.csr_array) -> sparse.csr_array:
    """Replace counts by max(0, log(P(i, j) / (P(i) P(j)))), in place: they may fill the memory."""
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).reshape(-1)
    for first in range(0, len(totals), ROWS_AT_ONCE):
        bounds = counts.indptr[first : first + ROWS_AT_ONCE + 1]
        pairs, lengths = slice(bounds[0], bounds[-1]), np.diff(bounds)
        row_totals = np.repeat(totals[first : first + ROWS_AT_ONCE], lengths)
        expected = row_totals * totals[counts.indices[pairs]] / max(totals.sum(), 1)
        counts.data[pairs] = np.maximum(0, np.log(counts.data[pairs] / expected))
    counts.eliminate_zeros()
    return counts


def _sample_users(lengths: NDArray[np.int64], seed: int, max_pairs: int) -> NDArray[np.bool_]:
    """Sample users in random order while their pairs stay within the limit; [num_users]."""
    order = np.random.default_rng([seed, 2]).permutation(len(lengths))
    is_within = np.cumsum(lengths[order] ** 2) <= max_pairs
    is_sampled = np.zeros(len(lengths), dtype=np.bool_)
    is_sampled[order[is_within]] = True
    return is_sampled
