"""Exact scores, and the best of them."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from index.id_table import Rows
from index.item_index import Floats
from index.searching.row_set import RowSet

CHUNK = 8_192  # vectors gathered at once
SLICE = 65_536  # vectors read at once where they stand
MANY_SHARE = 0.25  # of a catalogue: from here on reading everything is cheaper than gathering


def exact_scores(vectors: Floats, rows: Rows, query: Floats) -> Floats:
    """Return the inner products of a query [dim] with chosen rows; shape [len(rows)]."""
    return (vectors.take(rows, axis=0) @ query).astype(np.float32, copy=False)


def best_rows(rows: Rows, scores: Floats, count: int) -> NDArray[np.intp]:
    """Return positions of the best `count`, ordered by score downwards, then row upwards."""
    if count < len(rows) // 2:  # most can go before they are ordered
        floor = np.partition(scores, len(scores) - count)[len(scores) - count]
        kept = np.flatnonzero(scores >= floor)
        return kept[np.lexsort((rows[kept], -scores[kept]))][:count]
    return np.lexsort((rows, -scores))[:count]


def best_of(
    vectors: Floats, eligible: RowSet, query: Floats, count: int
) -> tuple[Rows, Floats]:
    """Return the best `count` of the eligible rows and their scores, in small steps."""
    is_many = eligible.count > MANY_SHARE * eligible.item_count
    parts = _read(vectors, eligible, query) if is_many else _gather(vectors, eligible, query)
    return _best(parts, count)


def _best(parts: Iterable[tuple[Rows, Floats]], count: int) -> tuple[Rows, Floats]:
    rows, scores = np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)
    for more_rows, more_scores in parts:
        rows = np.concatenate([rows, more_rows])
        scores = np.concatenate([scores, more_scores])
        best = best_rows(rows, scores, count)
        rows, scores = rows[best], scores[best]
    return rows, scores


def _gather(vectors: Floats, eligible: RowSet, query: Floats) -> Iterator[tuple[Rows, Floats]]:
    rows = eligible.rows()
    for first in range(0, len(rows), CHUNK):
        chosen = rows[first : first + CHUNK]
        yield chosen, exact_scores(vectors, chosen, query)


def _read(vectors: Floats, eligible: RowSet, query: Floats) -> Iterator[tuple[Rows, Floats]]:
    for first in range(0, eligible.item_count, SLICE):
        chosen = eligible.rows_between(first, first + SLICE)
        scores = (vectors[first : first + SLICE] @ query).astype(np.float32, copy=False)
        yield chosen, scores[chosen - first]
