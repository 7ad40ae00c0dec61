"""Bundle self-test: stored queries and their results, replayed when a bundle is opened.

Digests verify the files; the self-test verifies that this machine and its library versions
compute the published results from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.ann.index import ItemIndex
from index.ann.rescore import exact_scores
from index.arrays import Floats, Rows
from index.encoders import UserEncoder, pad_histories

TOLERANCE = 1e-4  # CPUs round differently


@dataclass(frozen=True)
class SelfTest:
    """Queries with their expected results.

    Attributes:
        histories: Item rows of each query, oldest first, not empty.
        queries: [queries, dim], query vectors of the trainer.
        rows: [queries, count], results of the index, best first.
        scores: [queries, count], their exact inner products.
    """

    histories: Sequence[Rows]
    queries: Floats
    rows: Rows
    scores: Floats

    def save(self, path: Path) -> None:
        """Write `self_test.npz`: plain arrays, no pickle."""
        history_rows, mask = pad_histories(self.histories)
        np.savez(
            path,
            allow_pickle=False,
            history_rows=np.where(mask, history_rows, -1),
            queries=self.queries,
            rows=self.rows,
            scores=self.scores,
        )

    def run(self, encoder: UserEncoder, index: ItemIndex, vectors: Floats) -> list[str]:
        """Encode and search every query; return the faults.

        Compares query vectors and exact scores, not rows: ties may be ordered differently.
        """
        all_rows = np.concatenate([*self.histories, self.rows.ravel()])
        if all_rows.min() < 0 or all_rows.max() >= len(vectors):
            return [
                f"self_test.npz: found row {all_rows.max()}, expected fewer than {len(vectors)}"
            ]
        queries = encoder.encode_histories(vectors, self.histories)
        if queries.shape != self.queries.shape:
            stored = self.queries.shape
            return [f"self_test.npz: found queries {stored}, the encoder returns {queries.shape}"]
        faults = []
        error = float(np.abs(queries - self.queries).max())
        if not error <= TOLERANCE:
            faults.append(f"user_encoder.onnx: query vectors are off by {error:.2g}")
        for number, query in enumerate(queries):
            error = self._score_error(number, query, index, vectors)
            if not error <= TOLERANCE:
                faults.append(f"items.faiss: scores of query {number} are off by {error:.2g}")
        return faults

    def _score_error(self, number: int, query: Floats, index: ItemIndex, vectors: Floats) -> float:
        """Return the largest error of the scores of a query, stored and searched again."""
        stored = self.scores[number]
        rows = index.search(query[np.newaxis], len(stored)).rows[0]
        if (rows < 0).any():
            return float("inf")
        again = exact_scores(vectors, self.rows[number], query)
        searched = exact_scores(vectors, rows, query)
        of_search = np.abs(np.sort(searched) - np.sort(stored)).max()
        return float(max(np.abs(again - stored).max(), of_search))


def open_self_test(path: Path) -> SelfTest:
    """Read `self_test.npz`; raises ValueError, KeyError or OSError if it is invalid."""
    with np.load(path, allow_pickle=False) as arrays:
        histories = [row[row >= 0].astype(np.int32) for row in arrays["history_rows"]]
        queries = np.asarray(arrays["queries"], dtype=np.float32)
        rows = np.asarray(arrays["rows"], dtype=np.int32)
        scores = np.asarray(arrays["scores"], dtype=np.float32)
    if not histories or any(not len(history) for history in histories):
        raise ValueError("found no query, or an empty history")
    if {len(queries), len(rows), len(scores)} != {len(histories)} or rows.shape != scores.shape:
        raise ValueError("found arrays of different lengths")
    return SelfTest(histories, queries, rows, scores)
