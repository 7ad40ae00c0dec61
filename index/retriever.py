"""From a history to candidates. Online and offline answers come from this file alone."""

from collections.abc import Sequence

import numpy as np

from index.bundle import Bundle
from index.errors import UnknownItemError
from index.id_table import Rows
from index.item_index import Floats
from index.question import Answer, Fallback, Prepared, Question, SimilarQuestion
from index.row_set import RowSet
from index.search import QUICK_ROWS, Search

__all__ = ["Answer", "Fallback", "Prepared", "Question", "Retriever", "SimilarQuestion"]


class Retriever:
    """Answers questions from one bundle.

    A question is prepared (its history read and encoded), then finished (searched). Many are
    prepared by one call of the encoder; each is finished alone, others may come between.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._search = Search(bundle.index, bundle.vectors)
        self._popular_rows = np.argsort(-bundle.counts, kind="stable").astype(np.int32)

    def find(self, question: Question, denied: RowSet | None = None) -> Answer:
        """Find up to `count` candidates; fewer only where fewer are eligible.

        denied  rows that are never returned, whoever asks
        """
        return self.finish(self.prepare([question])[0], denied)

    def find_quickly(self, question: Question, denied: RowSet | None = None) -> Answer | None:
        """Answer as `find` does; None if only a long exact search would, which is not done."""
        return self.finish_quickly(self.prepare([question])[0], denied)

    def similar(self, question: SimilarQuestion, denied: RowSet | None = None) -> Answer:
        """Find up to `count` items like one; raises UnknownItemError if that is not held."""
        return self.finish(self.prepare_similar(question), denied)

    def prepare(self, questions: Sequence[Question]) -> list[Prepared]:
        """Read and encode the histories of questions, all in one call of the encoder."""
        read = [self._history_of(question) for question in questions]
        asked = [history for history, _, fallback in read if fallback is None]
        queries = iter(self.encode(asked) if asked else ())
        return [
            Prepared(
                count=question.count,
                query=None if fallback else next(queries),
                excluded=self._excluded(question, history),
                filters=question.filters,
                fallback=fallback,
                unknown=unknown,
            )
            for question, (history, unknown, fallback) in zip(questions, read, strict=True)
        ]

    def prepare_similar(self, question: SimilarQuestion) -> Prepared:
        """Take an item's vector for the query; raises UnknownItemError if it is not held."""
        row = self.bundle.items.row_of(question.item_id)
        if row < 0:
            raise UnknownItemError(
                f"item {question.item_id!r}: bundle {self.bundle.version} does not hold it; "
                "ask for an item of its catalogue"
            )
        named = self.bundle.items.rows_of(question.exclude)
        excluded = np.unique(np.append(named[named >= 0], row)).astype(np.int32)
        query = self.bundle.vectors[row]
        return Prepared(question.count, query, excluded, question.filters, None, [])

    def finish(self, prepared: Prepared, denied: RowSet | None = None) -> Answer:
        """Search for a prepared question, whatever it takes."""
        answer = self._finish(prepared, denied, None)
        assert answer is not None  # without a limit there is always one
        return answer

    def finish_quickly(self, prepared: Prepared, denied: RowSet | None = None) -> Answer | None:
        """Search as `finish` does; None if only a long exact search would answer."""
        return self._finish(prepared, denied, QUICK_ROWS)

    def encode(self, histories: Sequence[Rows]) -> Floats:
        """Encode histories of item rows, oldest first, none empty; [len(histories), dim]."""
        return self.bundle.user_encoder.encode_histories(self.bundle.vectors, histories)

    def search(self, query: Floats, count: int, excluded: Rows) -> tuple[Rows, Floats]:
        """Find the best `count` rows for a query [dim], ordered by exact score, then row.

        excluded  distinct item rows that must not be returned
        """
        found = self._search.find(query, count, excluded, None)
        assert found is not None  # without a limit there is always something
        return found

    def _finish(
        self, prepared: Prepared, denied: RowSet | None, most_rows: int | None
    ) -> Answer | None:
        allowed = denied.complement() if denied is not None else None
        if prepared.query is None:
            rows, scores = self._popular(prepared.count, prepared.excluded, allowed), None
        else:
            found = self._search.find(
                prepared.query, prepared.count, prepared.excluded, allowed, most_rows
            )
            if found is None:
                return None
            rows, scores = found
        ids = self.bundle.items.ids_of(rows)
        return Answer(ids, rows, scores, prepared.fallback, prepared.unknown)

    def _popular(self, count: int, excluded: Rows, allowed: RowSet | None) -> Rows:
        """Return the items with the most training positives that may be returned."""
        rows = self._popular_rows
        if allowed is not None:
            rows = rows[allowed.contains(rows)]
        head = rows[: count + len(excluded)]
        return head[~np.isin(head, excluded)][:count]

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
