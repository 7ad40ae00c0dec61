"""Stored queries with the trainer's own results, searched again whenever a bundle is opened.

Digests prove that the bytes are the published ones; the self-test proves that this machine and
these library versions still compute the published results from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.ann.index import ItemIndex
from index.ann.rescore import exact_scores
from index.arrays import Floats, Rows
from index.encoders import UserEncoder, padded

TOLERANCE = 1e-4  # other CPUs round otherwise


@dataclass(frozen=True)
class SelfTest:
    """Queries and their results.

    Attributes:
        histories: Item rows of each query, oldest first, none empty.
        queries: [queries, dim] the trainer's query vectors.
        rows: [queries, count] what the index returned, best first.
        scores: [queries, count] their exact inner products.
    """

    histories: Sequence[Rows]
    queries: Floats
    rows: Rows
    scores: Floats

    def save(self, path: Path) -> None:
        """Write `self_test.npz`: plain arrays, no pickle."""
        history_rows, mask = padded(self.histories)
        np.savez(
            path,
            allow_pickle=False,
            history_rows=np.where(mask, history_rows, -1),
            queries=self.queries,
            rows=self.rows,
            scores=self.scores,
        )

    def run(self, encoder: UserEncoder, index: ItemIndex, vectors: Floats) -> list[str]:
        """Encode and search every query again; return the faults found.

        Query vectors and exact scores are compared, never ids alone: ties may change places.
        """
        named = np.concatenate([*self.histories, self.rows.ravel()])
        if named.min() < 0 or named.max() >= len(vectors):
            return [
                f"self_test.npz: names row {named.max()}, the bundle holds {len(vectors)} items"
            ]
        queries = encoder.encode_histories(vectors, self.histories)
        if queries.shape != self.queries.shape:
            made, stored = queries.shape, self.queries.shape
            return [f"self_test.npz: queries are {stored}, the encoder makes {made}"]
        faults = []
        error = float(np.abs(queries - self.queries).max())
        if not error <= TOLERANCE:
            faults.append(f"user_encoder.onnx: queries are {error:.2g} off the trainer's")
        for place, query in enumerate(queries):
            error = self._score_error(place, query, index, vectors)
            if not error <= TOLERANCE:
                faults.append(
                    f"items.faiss: scores of probe {place} are {error:.2g} off the trainer's"
                )
        return faults

    def _score_error(self, place: int, query: Floats, index: ItemIndex, vectors: Floats) -> float:
        """Return how far the scores of a query's rows, stored and found again, are off."""
        stored = self.scores[place]
        rows = index.search(query[np.newaxis], len(stored)).rows[0]
        if (rows < 0).any():
            return float("inf")
        again = exact_scores(vectors, self.rows[place], query)
        found = exact_scores(vectors, rows, query)
        of_search = np.abs(np.sort(found) - np.sort(stored)).max()
        return float(max(np.abs(again - stored).max(), of_search))


def open_self_test(path: Path) -> SelfTest:
    """Read `self_test.npz`; raises ValueError, KeyError or OSError if it is not one."""
    with np.load(path, allow_pickle=False) as arrays:
        histories = [row[row >= 0].astype(np.int32) for row in arrays["history_rows"]]
        queries = np.asarray(arrays["queries"], dtype=np.float32)
        rows = np.asarray(arrays["rows"], dtype=np.int32)
        scores = np.asarray(arrays["scores"], dtype=np.float32)
    if not histories or any(not len(one) for one in histories):
        raise ValueError("it holds no question, or an empty history")
    if {len(queries), len(rows), len(scores)} != {len(histories)} or rows.shape != scores.shape:
        raise ValueError("its arrays differ in length")
    return SelfTest(histories, queries, rows, scores)
