"""Search within a scope: the best rows for a query, by exact score, as many as there are.

From cheap to dear: a few rows are compared one by one; else the index is asked, more of it
where that was not enough; at last every eligible row is compared. Which of them a question
takes does not depend on how busy the service is, nor on the questions that are asked with it:
it gets the same answer each time, but for items that score exactly alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.ann.index import ItemIndex, Neighbours
from index.ann.probing import (
    LIMITS,
    MAX_FILTER_DEPTH,
    NEARLY_ALL,
    TUNED_COUNT,
    Limits,
    SearchEffort,
    effort_for,
    slack,
)
from index.ann.rescore import Found, best_by, best_of, best_of_each
from index.arrays import Floats, Rows
from index.bitmap import RowSet
from index.searching.scope import Scope

MARKS = 1 << 16  # by which excluded rows are told from others, a few of those in error
DEEPER = (4, math.inf)  # times, where too few were found
PAST_MANY = 1.3  # times as deep: what is left lies behind what is excluded
EXCLUDED_ALIKE = 64  # who excludes many more than others would make all fetch as many


@dataclass(slots=True)
class Ask:
    """What one question asks of the search.

    query     [dim]
    excluded  item rows that must not be returned, in any order
    scope     the only rows that may be; None: all
    """

    query: Floats
    count: int
    excluded: Rows
    scope: Scope | None


@dataclass(frozen=True)
class Way:
    """How an index is asked: with so much effort, only some rows looked at."""

    index: ItemIndex
    effort: SearchEffort
    allowed: RowSet | None

    def ask(self, queries: Floats, count: int) -> Neighbours:
        """Return up to `count` rows near each query."""
        return self.index.search(
            queries, min(count, self.index.count), self.effort, self.allowed
        )


@dataclass(frozen=True)
class Search:
    """Finds rows of one bundle."""

    index: ItemIndex
    vectors: Floats
    limits: Limits = LIMITS

    def find(self, ask: Ask) -> Found:
        """Find the best `count` rows, ordered by exact score, then row.

        returns  rows and exact scores; fewer than `count` only where fewer are eligible
        """
        found = self.find_quickly([ask])[0]
        if found is None:
            found = best_of(self.vectors, self._eligible(ask), ask.query, ask.count)
        return found

    def find_quickly(self, asks: Sequence[Ask]) -> list[Found | None]:
        """Find as `find` does; None for whom only comparing very many rows would tell.

        Those who search the same rows equally deep are searched for together.
        """
        alike: dict[tuple[int, ...], list[int]] = {}
        for place, ask in enumerate(asks):
            is_long = len(ask.excluded) > self.limits.many_excluded
            much = len(ask.excluded) // EXCLUDED_ALIKE
            kind = (is_long, id(ask.scope), max(ask.count, TUNED_COUNT), much)
            alike.setdefault(kind, []).append(place)
        found: list[Found | None] = [None] * len(asks)
        for key, places in alike.items():
            find = self._find_past if key[0] else self._find_alike
            for place, own in zip(places, find([asks[one] for one in places]), strict=True):
                found[place] = own
        return found

    def _find_alike(self, asks: Sequence[Ask]) -> list[Found | None]:
        """Find for those who search the same rows equally deep, and exclude few."""
        scope = asks[0].scope
        if scope is not None and scope.listed is not None:
            return [
                self._best(one, without(scope.listed, np.sort(one.excluded))) for one in asks
            ]
        way = self._way(max(one.count for one in asks), scope)
        queries = np.stack([one.query for one in asks])
        foremost = self._foremost(way, queries, asks, scope)
        found = best_of_each(self.vectors, queries, foremost, [one.count for one in asks])
        return [self._enough(*one) for one in zip(asks, found, strict=True)]

    def _foremost(
        self, way: Way, queries: Floats, asks: Sequence[Ask], scope: Scope | None
    ) -> Rows:
        """Return the rows worth an exact score; [queries, most], -1 where there are fewer.

        The same ones in whatever company, but for rows that the index scores exactly alike.
        """
        wanted = [one.count + slack(one.count) for one in asks]
        excluded = [one.excluded for one in asks]
        fetched = [n + len(own) for n, own in zip(wanted, excluded, strict=True)]
        near = way.ask(queries, max(fetched))
        if scope is None:
            drop_excluded(near.rows, excluded)
            return best_by(*near, wanted)
        rows = best_by(*near, fetched)  # how many of them may not be is not known
        drop_excluded(rows, excluded)
        rows[~scope.allowed.contains(rows)] = -1
        return rows

    def _find_past(self, asks: Sequence[Ask]) -> list[Found | None]:
        """Find for those who exclude very many: the more are in the way, the deeper."""
        return [self._enough(one, self._past(one)) for one in asks]

    def _past(self, ask: Ask) -> Found:
        way = self._way(math.ceil(ask.count * PAST_MANY), ask.scope)
        wanted = ask.count + slack(ask.count)
        found = known(way.ask(ask.query[np.newaxis], wanted))
        rest = without(found, np.sort(ask.excluded))
        if ask.scope is not None:
            rest = rest[ask.scope.allowed.contains(rest)]
        if len(rest) < ask.count:
            effort = way.effort.times(len(found) / max(1, len(rest)))
            deeper = Way(way.index, effort, self._eligible(ask))
            rest = known(deeper.ask(ask.query[np.newaxis], wanted))
        return self._best(ask, rest)

    def _way(self, count: int, scope: Scope | None) -> Way:
        """Choose the index for a scope, and how deep to search it."""
        index, share, allowed = self.index, 1.0, None
        if scope is not None:
            share = max(1, scope.allowed.count) / index.count
            index = scope.narrow or index
            if share < NEARLY_ALL and not scope.is_filled:  # else dropping is cheaper
                allowed = scope.allowed
        effort = self._effort(index, count, share)
        if index is self.index and allowed is not None:  # how evenly it leaves out is not known
            effort = effort.times(MAX_FILTER_DEPTH)
        return Way(index, effort, allowed)

    def _effort(self, index: ItemIndex, count: int, share: float) -> SearchEffort:
        return effort_for(count, share, index.rows_per_list, self.limits)

    def _enough(self, ask: Ask, found: Found) -> Found | None:
        """Find more where the index found too few; None if that takes long."""
        if len(found[0]) >= ask.count:
            return found
        eligible = self._eligible(ask)
        wanted = min(ask.count, eligible.count)
        if len(found[0]) >= wanted:
            return found
        if eligible.count <= self.limits.few:
            return self._best(ask, eligible.rows())
        tried = self._effort(self.index, ask.count, 1.0)
        for factor in DEEPER:
            way = Way(self.index, tried.times(factor), eligible)
            rows = known(way.ask(ask.query[np.newaxis], ask.count + slack(ask.count)))
            if len(rows) >= wanted:
                return self._best(ask, rows)
        return None

    def _eligible(self, ask: Ask) -> RowSet:
        if ask.scope is not None:
            return ask.scope.allowed.without(ask.excluded)
        return RowSet.from_rows(ask.excluded, len(self.vectors)).complement()

    def _best(self, ask: Ask, rows: Rows) -> Found:
        queries = ask.query[np.newaxis]
        return best_of_each(self.vectors, queries, rows[np.newaxis], [ask.count])[0]


def known(near: Neighbours) -> Rows:
    """Return what the index found for its only query."""
    return near.rows[near.rows >= 0]


def without(rows: Rows, excluded: Rows) -> Rows:
    """Return the rows that are not among the excluded, which ascend."""
    if not len(excluded):
        return rows
    places = np.searchsorted(excluded, rows)
    is_kept: NDArray[np.bool_] = excluded.take(places, mode="clip") != rows
    return rows[is_kept]


def drop_excluded(rows: Rows, excluded: Sequence[Rows]) -> None:
    """Put -1 in the place of the rows that a question excludes.

    rows      [questions, most]
    excluded  rows of each question, in any order
    """
    barred = np.concatenate(excluded).astype(np.int64)
    if not len(barred):
        return
    questions = np.arange(len(excluded), dtype=np.int64) << 32
    barred += questions.repeat([len(one) for one in excluded])
    barred.sort()
    asked = (rows + questions[:, np.newaxis]).ravel()
    is_marked = np.zeros(MARKS, dtype=np.bool_)  # nearly all rows are found to be free by that
    is_marked[mark_of(barred)] = True
    doubtful = np.flatnonzero(is_marked[mark_of(asked)])
    places = np.searchsorted(barred, asked[doubtful])
    is_barred = barred.take(places, mode="clip") == asked[doubtful]
    rows.flat[doubtful[is_barred]] = -1


def mark_of(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a mark of each number, of MARKS there are."""
    marks: NDArray[np.int64] = (numbers ^ (numbers >> 26)) & (MARKS - 1)
    return marks
