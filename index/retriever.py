"""From a history to candidates. Online and offline answers come from this file alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from index.bundle import Bundle
from index.id_table import Rows
from index.item_index import Floats, best_rows, exact_scores, slack

Fallback = Literal["unknown_user", "empty_history", "no_known_items"]


@dataclass(frozen=True)
class Question:
    """Which items might this user want?

    history       item ids, oldest first; replaces the stored history of `user_id` where given
    exclude       item ids never to return
    exclude_seen  whether the items of the whole history are excluded too
    """

    count: int
    user_id: str | None = None
    history: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    exclude_seen: bool = True


@dataclass(frozen=True)
class Answer:
    """Candidates, best first.

    scores    [count]  exact inner products; None where popular items were returned instead
    fallback  why popular items were returned; None where the history answered
    unknown   ids of the history that the bundle does not hold
    """

    item_ids: list[str]
    scores: Floats | None
    fallback: Fallback | None
    unknown: list[str]


class Retriever:
    """Answers questions from one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._popular_rows = np.argsort(-bundle.counts, kind="stable").astype(np.int32)

    def find(self, question: Question) -> Answer:
        """Find up to `count` candidates; fewer only where fewer are eligible."""
        history, unknown, fallback = self._history_of(question)
        excluded = self._excluded(question, history)
        if fallback:
            rows, scores = self.popular(question.count, excluded), None
        else:
            query = self.encode([history])[0]
            rows, scores = self.search(query, question.count, excluded)
        return Answer(self.bundle.items.ids_of(rows), scores, fallback, unknown)

    def encode(self, histories: Sequence[Rows]) -> Floats:
        """Encode histories of item rows, oldest first, none empty; [len(histories), dim]."""
        return self.bundle.user_encoder.encode_histories(self.bundle.vectors, histories)

    def search(self, query: Floats, count: int, excluded: Rows) -> tuple[Rows, Floats]:
        """Find the best `count` rows for a query [dim], ordered by exact score, then row.

        excluded  distinct item rows that must not be returned
        """
        vectors = self.bundle.vectors
        wanted = min(count, len(vectors) - len(excluded))
        fetched = min(count + len(excluded) + slack(count), len(vectors))
        rows = self.bundle.index.search(query, fetched)
        rows = rows[~np.isin(rows, excluded)]
        if len(rows) < wanted:
            rows = self._eligible(excluded)
        scores = exact_scores(vectors, rows, query)
        best = best_rows(rows, scores, wanted)
        return rows[best], scores[best]

    def popular(self, count: int, excluded: Rows) -> Rows:
        """Return the items with the most training positives, without the excluded."""
        head = self._popular_rows[: count + len(excluded)]
        return head[~np.isin(head, excluded)][:count]

    def _eligible(self, excluded: Rows) -> Rows:
        is_eligible = np.ones(len(self.bundle.vectors), dtype=np.bool_)
        is_eligible[excluded] = False
        return np.flatnonzero(is_eligible).astype(np.int32)

    def _history_of(self, question: Question) -> tuple[Rows, list[str], Fallback | None]:
        """Return known history rows, unknown ids, and why there is nothing to encode, if so."""
        if question.history is None:
            stored = self._stored_history(question.user_id)
            missing: Fallback = "empty_history" if question.user_id is None else "unknown_user"
            return (NO_ROWS, [], missing) if stored is None else (stored, [], _if_empty(stored))
        rows = self.bundle.items.rows_of(question.history)
        unknown = [one for one, row in zip(question.history, rows, strict=True) if row < 0]
        known = rows[rows >= 0]
        reason: Fallback | None = "no_known_items" if unknown else "empty_history"
        return known, unknown, None if len(known) else reason

    def _stored_history(self, user_id: str | None) -> Rows | None:
        if user_id is None or self.bundle.histories is None:
            return None
        return self.bundle.histories.of(user_id)

    def _excluded(self, question: Question, history: Rows) -> Rows:
        named = self.bundle.items.rows_of(question.exclude)
        seen = history if question.exclude_seen else NO_ROWS
        return np.unique(np.concatenate([named[named >= 0], seen])).astype(np.int32)


NO_ROWS = np.empty(0, dtype=np.int32)


def _if_empty(history: Rows) -> Fallback | None:
    return None if len(history) else "empty_history"
