"""A few questions with the trainer's own answers, asked again at every opening.

Digests prove that the bytes are the published ones; the probe proves that this machine and
these library versions still make the published answers of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.ann.index import ItemIndex
from index.arrays import Floats, Rows
from index.encoders import UserEncoder, padded
from index.searching.scores import exact_scores

TOLERANCE = 1e-4  # other CPUs round otherwise


@dataclass(frozen=True)
class Probe:
    """Questions and answers.

    histories  one array of item rows per question, oldest first, none empty
    queries    [questions, dim]     the trainer's query vectors
    rows       [questions, count]   what the index returned, best first
    scores     [questions, count]   their exact inner products
    """

    histories: Sequence[Rows]
    queries: Floats
    rows: Rows
    scores: Floats

    def save(self, path: Path) -> None:
        """Write `probe.npz`: plain arrays, no pickle."""
        history_rows, mask = padded(self.histories)
        np.savez(
            path,
            allow_pickle=False,
            history_rows=np.where(mask, history_rows, -1),
            queries=self.queries,
            rows=self.rows,
            scores=self.scores,
        )


def open_probe(path: Path) -> Probe:
    """Read `probe.npz`; raises ValueError, KeyError or OSError if it is not one."""
    with np.load(path, allow_pickle=False) as arrays:
        histories = [row[row >= 0].astype(np.int32) for row in arrays["history_rows"]]
        queries = np.asarray(arrays["queries"], dtype=np.float32)
        rows = np.asarray(arrays["rows"], dtype=np.int32)
        scores = np.asarray(arrays["scores"], dtype=np.float32)
    if not histories or any(not len(one) for one in histories):
        raise ValueError("it holds no question, or an empty history")
    if (
        not len(histories) == len(queries) == len(rows) == len(scores)
        or rows.shape != scores.shape
    ):
        raise ValueError("its arrays differ in length")
    return Probe(histories, queries, rows, scores)


def replay(probe: Probe, encoder: UserEncoder, index: ItemIndex, vectors: Floats) -> list[str]:
    """Ask every question again; return the faults found.

    Compared are query vectors and exact scores, never ids alone: ties may change places.
    """
    highest = max(int(one.max()) for one in [*probe.histories, probe.rows])
    if (
        highest >= len(vectors)
        or min(int(one.min()) for one in [*probe.histories, probe.rows]) < 0
    ):
        return [f"probe.npz: names row {highest}, the bundle holds {len(vectors)} items"]
    queries = encoder.encode_histories(vectors, probe.histories)
    if queries.shape != probe.queries.shape:
        return [
            f"probe.npz: queries are {probe.queries.shape}, the encoder makes {queries.shape}"
        ]
    faults = []
    away = float(np.abs(queries - probe.queries).max())
    if not away <= TOLERANCE:
        faults.append(f"user_encoder.onnx: queries are {away:.2g} off the trainer's")
    for question, query in enumerate(queries):
        away = _away(probe, question, query, index, vectors)
        if not away <= TOLERANCE:
            faults.append(
                f"items.faiss: scores of probe {question} are {away:.2g} off the trainer's"
            )
    return faults


def _away(
    probe: Probe, question: int, query: Floats, index: ItemIndex, vectors: Floats
) -> float:
    """Return how far the scores of a question's rows, stored and found anew, are off."""
    stored = probe.scores[question]
    again = exact_scores(vectors, probe.rows[question], query)
    rows = index.search(query[np.newaxis], len(stored)).rows[0]
    if (rows < 0).any():
        return float("inf")
    found = exact_scores(vectors, rows, query)
    return float(
        max(np.abs(again - stored).max(), np.abs(np.sort(found) - np.sort(stored)).max())
    )
