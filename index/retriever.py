"""From a history to candidates. Online and offline answers come from this file alone."""

from collections.abc import Sequence

import numpy as np

from index.ann.probing import LIMITS, Limits
from index.arrays import Floats, Rows
from index.bitmap import RowSet
from index.bundle.reader import Bundle
from index.errors import UnknownItemError
from index.searching.popular import Popular
from index.searching.question import (
    Answer,
    Fallback,
    Filter,
    Prepared,
    Question,
    SimilarQuestion,
)
from index.searching.scope import NO_ROWS, Key, Scope
from index.searching.scopes import Scopes
from index.searching.search import Ask, Search

ROW_WORK = 14_000  # numbers of vectors compared while one id is looked up

__all__ = ["Answer", "Fallback", "Prepared", "Question", "Retriever", "SimilarQuestion"]


class Retriever:
    """Answers questions from one bundle.

    A question is prepared (its history read and encoded), then finished (searched). Many are
    prepared by one call of the encoder, and finished by one call of the index where they can
    be; each is answered as if it had been asked alone.

    least_work  what any search takes, in ids that could be looked up meanwhile
    """

    def __init__(self, bundle: Bundle, limits: Limits = LIMITS) -> None:
        self.bundle = bundle
        index = bundle.index
        self.least_work = index.count * index.dim // ROW_WORK if index.nprobe is None else 0
        self._search = Search(bundle.index, bundle.vectors, limits)
        self._popular = Popular(bundle.counts)
        self._scopes = Scopes(bundle, limits)
        self._allowed: tuple[RowSet, Scope] | None = None  # what was denied last, all but that

    def find(self, question: Question, denied: RowSet | None = None) -> Answer:
        """Find up to `count` candidates; fewer only where fewer are eligible.

        denied  rows that are never returned, whoever asks
        """
        return self.finish(self.prepare([question])[0], denied)

    def find_quickly(self, question: Question, denied: RowSet | None = None) -> Answer | None:
        """Answer as `find` does; None if only a long exact search would, which is not done."""
        return self.finish_quickly(self.prepare([question]), denied)[0]

    def similar(self, question: SimilarQuestion, denied: RowSet | None = None) -> Answer:
        """Find up to `count` items like one; raises UnknownItemError if that is not held."""
        return self.finish(self.prepare_similar(question), denied)

    def prepare(self, questions: Sequence[Question]) -> list[Prepared]:
        """Read and encode the histories of questions, all in one call of the encoder."""
        filters = self._read_filters([question.filter for question in questions])
        named = self.bundle.items.rows_of_each(
            [one.history or () for one in questions] + [one.exclude for one in questions]
        )
        told, excluded = named[: len(questions)], named[len(questions) :]
        are_known = bool((np.concatenate([NO_ROWS, *told]) >= 0).all())  # looked at once
        read = [self._read(*one, are_known) for one in zip(questions, told, strict=True)]
        asked = [history for history, _, fallback in read if fallback is None]
        queries = iter(self.encode(asked) if asked else ())
        return [
            Prepared(
                count=question.count,
                query=None if fallback else next(queries),
                excluded=_excluded(question, rows, history),
                wanted=wanted,
                fallback=fallback,
                unknown=unknown,
                unknown_values=unknown_values,
            )
            for question, rows, (wanted, unknown_values), (history, unknown, fallback) in zip(
                questions, excluded, filters, read, strict=True
            )
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
        wanted, unknown_values = self._scopes.read(question.filter)
        return Prepared(
            count=question.count,
            query=self.bundle.vectors[row],
            excluded=np.append(named[named >= 0], np.int32(row)),
            wanted=wanted,
            fallback=None,
            unknown=[],
            unknown_values=unknown_values,
        )

    def finish(self, prepared: Prepared, denied: RowSet | None = None) -> Answer:
        """Search for a prepared question, whatever it takes."""
        scope = self._scopes.find(prepared.wanted) if prepared.wanted else None
        scope = self._less(scope, denied)
        if prepared.query is None:
            rows, scores = self._popular.find(prepared.count, prepared.excluded, scope), None
        else:
            rows, scores = self._search.find(_ask(prepared, scope))
        return self._answer(prepared, rows, scores)

    def finish_quickly(
        self, prepared: Sequence[Prepared], denied: RowSet | None = None
    ) -> list[Answer | None]:
        """Search as `finish` does; None where that takes long: nobody should wait behind it.

        Long takes only what compares very many rows, or the first question with a wide filter.
        """
        found: dict[int, tuple[Rows, Floats | None]] = {}
        asks: dict[int, Ask] = {}
        for place, one in enumerate(prepared):
            scope = self._scopes.find_quickly(one.wanted) if one.wanted else None
            if one.wanted and scope is None:
                continue
            scope = self._less(scope, denied)
            if one.query is None:
                found[place] = self._popular.find(one.count, one.excluded, scope), None
            else:
                asks[place] = _ask(one, scope)
        searched = self._search.find_quickly(list(asks.values()))
        for place, own in zip(asks, searched, strict=True):
            if own is not None:
                found[place] = own
        return [
            self._answer(one, *found[place]) if place in found else None
            for place, one in enumerate(prepared)
        ]

    def encode(self, histories: Sequence[Rows]) -> Floats:
        """Encode histories of item rows, oldest first, none empty; [len(histories), dim]."""
        return self.bundle.user_encoder.encode_histories(self.bundle.vectors, histories)

    def search(self, query: Floats, count: int, excluded: Rows) -> tuple[Rows, Floats]:
        """Find the best `count` rows for a query [dim], ordered by exact score, then row.

        excluded  item rows that must not be returned
        """
        return self._search.find(Ask(query, count, excluded, None))

    def _read_filters(
        self, filters: Sequence[Filter]
    ) -> list[tuple[Key, dict[str, list[str]]]]:
        """Read filters; those that are alike once, for callers often ask for the same."""
        if not any(filters):
            return [((), {})] * len(filters)
        spelled = [tuple((name, *values) for name, values in one.items()) for one in filters]
        distinct = dict(zip(spelled, filters, strict=True))
        read = {key: self._scopes.read(one) for key, one in distinct.items()}
        return [read[key] for key in spelled]

    def _less(self, scope: Scope | None, denied: RowSet | None) -> Scope | None:
        """Return a scope less what is denied."""
        if denied is None:
            return scope
        kept = self._allowed  # read once: another thread may answer with another list
        if kept is None or kept[0] is not denied:
            kept = self._allowed = (denied, Scope(denied.complement()))
        rest = kept[1]
        return rest if scope is None else scope.within(rest.allowed)

    def _read(
        self, question: Question, rows: Rows, are_known: bool
    ) -> tuple[Rows, list[str], Fallback | None]:
        """Return known history rows, unknown ids, and why there is nothing to encode, if so.

        rows       of the question's history, -1 where unknown
        are_known  whether none is unknown; False: not all questions know all of theirs
        """
        if question.history is None:
            stored = self._stored_history(question.user_id)
            missing: Fallback = "empty_history" if question.user_id is None else "unknown_user"
            return (NO_ROWS, [], missing) if stored is None else (stored, [], _if_empty(stored))
        if are_known or not len(rows):
            return rows, [], _if_empty(rows)
        is_known = rows >= 0
        unknown = [one for one, row in zip(question.history, rows, strict=True) if row < 0]
        known = rows[is_known]
        return known, unknown, None if len(known) else "no_known_items"

    def _answer(self, prepared: Prepared, rows: Rows, scores: Floats | None) -> Answer:
        return Answer(
            items=self.bundle.items,
            rows=rows,
            scores=scores,
            fallback=prepared.fallback,
            unknown=prepared.unknown,
            unknown_values=prepared.unknown_values,
        )

    def _stored_history(self, user_id: str | None) -> Rows | None:
        if user_id is None or self.bundle.histories is None:
            return None
        return self.bundle.histories.of(user_id)


def _ask(prepared: Prepared, scope: Scope | None) -> Ask:
    assert prepared.query is not None  # who has none is told the popular items
    return Ask(prepared.query, prepared.count, prepared.excluded, scope)


def _excluded(question: Question, named: Rows, history: Rows) -> Rows:
    seen = history if question.exclude_seen else NO_ROWS
    return np.concatenate([named[named >= 0], seen]) if len(named) else seen


def _if_empty(history: Rows) -> Fallback | None:
    return None if len(history) else "empty_history"
