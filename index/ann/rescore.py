"""Exact scores, and the best of them."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from index.arrays import Floats, Rows
from index.bitmap import RowSet

CHUNK = 8_192  # vectors gathered at once
SLICE = 65_536  # vectors read at once where they stand
MANY_SHARE = 0.25  # of a catalogue: from here on reading everything is cheaper than gathering
BLOCK = 16  # rows
LAST = np.iinfo(np.int64).max  # what comes behind every key

Found = tuple[Rows, Floats]  # rows and their exact scores, best first


def exact_scores(vectors: Floats, rows: Rows, query: Floats) -> Floats:
    """Return the inner products of a query [dim] with chosen rows; shape [len(rows)]."""
    return (vectors.take(rows, axis=0) @ query).astype(np.float32, copy=False)


def best_by(rows: Rows, scores: Floats, counts: Sequence[int]) -> Rows:
    """Return the best of each query's rows by the scores that are told, then by row.

    rows     [queries, most]  -1 where a query has fewer than another
    scores   [queries, most]
    counts   how many each wants

    returns  [queries, max(counts)], best first
    """
    keys = np.where(rows >= 0, _keys(scores, rows), LAST)
    keys.sort(axis=1)
    best = _rows_in(keys[:, : max(counts)])
    best[np.arange(best.shape[1]) >= np.array(counts)[:, np.newaxis]] = -1  # another's
    return best


def best_of_each(
    vectors: Floats, queries: Floats, rows: Rows, counts: Sequence[int]
) -> list[Found]:
    """Return the best of each query's rows, by score downwards, then row upwards.

    queries  [queries, dim]
    rows     [queries, most]  -1 where a query has fewer than another
    counts   how many each wants; it gets fewer where it has fewer

    Scored in whole blocks: the last bits of a score do not depend on how many stand beside it.
    """
    rows = _in_blocks(rows)
    gathered = vectors.take(rows, axis=0, mode="clip")  # [queries, most, dim]
    scores = np.matmul(gathered, queries[:, :, np.newaxis])[:, :, 0]
    keys = np.where(rows >= 0, _keys(scores, rows), LAST)
    keys.sort(axis=1)  # whole numbers: many times as fast as by two columns
    best, scores = _read_keys(keys)
    ends = np.minimum(np.count_nonzero(rows >= 0, axis=1), counts).tolist()
    return [(best[place, :end], scores[place, :end]) for place, end in enumerate(ends)]


def _in_blocks(rows: Rows) -> Rows:
    filled = np.full((len(rows), -(-rows.shape[1] // BLOCK) * BLOCK), -1, dtype=np.int32)
    filled[:, : rows.shape[1]] = rows
    return filled


def _keys(scores: Floats, rows: Rows) -> NDArray[np.int64]:
    """Write scores and rows as numbers that ascend as scores fall, then as rows rise."""
    numbers = np.fmax(scores, np.float32(-np.inf)) + np.float32(0)  # NaN is last, -0 is 0
    downwards = ~_ascending(numbers.view(np.int32))
    keys: NDArray[np.int64] = (downwards.astype(np.int64) << 32) | rows
    return keys


def _read_keys(keys: NDArray[np.int64]) -> Found:
    scores = _ascending(~(keys >> 32).astype(np.int32)).view(np.float32)
    return _rows_in(keys), scores


def _rows_in(keys: NDArray[np.int64]) -> Rows:
    rows: Rows = (keys & 0xFFFFFFFF).astype(np.int32)
    return rows


def _ascending(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Turn the bits of floats into integers of the same order, or these back into bits."""
    turned: NDArray[np.int32] = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return turned


def best_of(vectors: Floats, eligible: RowSet, query: Floats, count: int) -> Found:
    """Return the best `count` of the eligible rows, in small steps."""
    is_many = eligible.count > MANY_SHARE * eligible.item_count
    parts = _read(vectors, eligible, query) if is_many else _gather(vectors, eligible, query)
    return _best(parts, count)


def _best(parts: Iterable[Found], count: int) -> Found:
    keys = np.empty(0, dtype=np.int64)
    for rows, scores in parts:
        keys = np.concatenate([keys, _keys(scores, rows)])
        if count < len(keys):
            keys = np.partition(keys, count)[:count]
    return _read_keys(np.sort(keys))


def _gather(vectors: Floats, eligible: RowSet, query: Floats) -> Iterator[Found]:
    rows = eligible.rows()
    for first in range(0, len(rows), CHUNK):
        chosen = rows[first : first + CHUNK]
        yield chosen, exact_scores(vectors, chosen, query)


def _read(vectors: Floats, eligible: RowSet, query: Floats) -> Iterator[Found]:
    for first in range(0, eligible.item_count, SLICE):
        chosen = eligible.rows_between(first, first + SLICE)
        scores = (vectors[first : first + SLICE] @ query).astype(np.float32, copy=False)
        yield chosen, scores[chosen - first]
