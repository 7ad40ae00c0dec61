"""Exact scoring and top-k selection."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from index.arrays import Floats, Rows
from index.bitmap import RowSet

CHUNK = 8_192  # vectors gathered per step
SLICE = 65_536  # vectors read sequentially per step
MANY_SHARE = 0.25  # of the catalogue: above this, a sequential read beats gathering
BLOCK = 16  # rows per scoring block
LAST = np.iinfo(np.int64).max  # sorts after every key

RankedRows = tuple[Rows, Floats]  # rows and their exact scores, best first


def exact_scores(vectors: Floats, rows: Rows, query: Floats) -> Floats:
    """Return the inner products of a query [dim] with rows; [len(rows)]."""
    return (vectors.take(rows, axis=0) @ query).astype(np.float32, copy=False)


def top_by_score(rows: Rows, scores: Floats, counts: Sequence[int]) -> Rows:
    """Select the top rows of each query by (-score, row).

    Args:
        rows: [queries, n], padded with -1.
        scores: [queries, n].
        counts: Number of rows to select per query.

    Returns:
        [queries, max(counts)], best first, padded with -1.
    """
    keys = np.where(rows >= 0, _keys(scores, rows), LAST)
    keys.sort(axis=1)
    best = _rows_in(keys[:, : max(counts)])
    best[np.arange(best.shape[1]) >= np.array(counts)[:, np.newaxis]] = -1
    return best


def rank_rows(
    vectors: Floats, queries: Floats, rows: Rows, counts: Sequence[int]
) -> list[RankedRows]:
    """Rank the rows of each query by (-exact score, row).

    Rows are scored in whole blocks, so that the last bits of a score do not depend on the batch.

    Args:
        vectors: [items, dim].
        queries: [queries, dim].
        rows: [queries, n], padded with -1.
        counts: Maximum number of results per query.
    """
    rows = _pad_to_blocks(rows)
    gathered = vectors.take(rows, axis=0, mode="clip")  # [queries, n, dim]
    scores = np.matmul(gathered, queries[:, :, np.newaxis])[:, :, 0]
    keys = np.where(rows >= 0, _keys(scores, rows), LAST)
    keys.sort(axis=1)  # integer keys sort many times faster than two columns
    best, scores = _read_keys(keys)
    ends = np.minimum(np.count_nonzero(rows >= 0, axis=1), counts).tolist()
    return [(best[query, :end], scores[query, :end]) for query, end in enumerate(ends)]


def _pad_to_blocks(rows: Rows) -> Rows:
    filled = np.full((len(rows), -(-rows.shape[1] // BLOCK) * BLOCK), -1, dtype=np.int32)
    filled[:, : rows.shape[1]] = rows
    return filled


def _keys(scores: Floats, rows: Rows) -> NDArray[np.int64]:
    """Pack scores and rows into integers that sort by (-score, row)."""
    numbers = np.fmax(scores, np.float32(-np.inf)) + np.float32(0)  # NaN sorts last, -0 equals 0
    downwards = ~_ascending(numbers.view(np.int32))
    keys: NDArray[np.int64] = (downwards.astype(np.int64) << 32) | rows
    return keys


def _read_keys(keys: NDArray[np.int64]) -> RankedRows:
    scores = _ascending(~(keys >> 32).astype(np.int32)).view(np.float32)
    return _rows_in(keys), scores


def _rows_in(keys: NDArray[np.int64]) -> Rows:
    rows: Rows = (keys & 0xFFFFFFFF).astype(np.int32)
    return rows


def _ascending(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Map float bits to integers of the same order, and back."""
    ordered: NDArray[np.int32] = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return ordered


def rank_eligible(vectors: Floats, eligible: RowSet, query: Floats, count: int) -> RankedRows:
    """Rank the best `count` eligible rows, chunk by chunk."""
    is_many = eligible.count > MANY_SHARE * eligible.item_count
    parts = _read(vectors, eligible, query) if is_many else _gather(vectors, eligible, query)
    return _best(parts, count)


def _best(parts: Iterable[RankedRows], count: int) -> RankedRows:
    keys = np.empty(0, dtype=np.int64)
    for rows, scores in parts:
        keys = np.concatenate([keys, _keys(scores, rows)])
        if count < len(keys):
            keys = np.partition(keys, count)[:count]
    return _read_keys(np.sort(keys))


def _gather(vectors: Floats, eligible: RowSet, query: Floats) -> Iterator[RankedRows]:
    rows = eligible.rows()
    for first in range(0, len(rows), CHUNK):
        chosen = rows[first : first + CHUNK]
        yield chosen, exact_scores(vectors, chosen, query)


def _read(vectors: Floats, eligible: RowSet, query: Floats) -> Iterator[RankedRows]:
    for first in range(0, eligible.item_count, SLICE):
        chosen = eligible.rows_between(first, first + SLICE)
        scores = (vectors[first : first + SLICE] @ query).astype(np.float32, copy=False)
        yield chosen, scores[chosen - first]
