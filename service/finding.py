"""How questions reach the live bundle: each in a turn of its own, the long ones beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Generic

from starlette.requests import Request

from index.bitmap import RowSet
from service.admission import Admission
from service.answering import Given, One, Prepare, give, prepare_users, written
from service.company import Company, Waiting
from service.metrics import Metrics
from service.schemas.retrieval import RetrieveRequest
from service.schemas.similar import SimilarRequest
from service.side_work import SideWork
from service.state.bundle_watcher import Live, LiveBundle
from service.state.cluster_watcher import Joined, LiveClusters

AT_ONCE = 32  # questions of a batch answered in one turn, 4 to 8 ms: more would hold up others
MUCH_WORK = 5_000  # ids and values looked up, candidates wanted, and the like, in as long
COMPANY = 64  # questions of different callers: they would hold up each other
FILTER_WORK = 150  # of a question with a filter: more lists are read for it
MANY_TEXTS = 2_000  # ids and values: with more, a question is a long search


class Finder:
    """Answers questions for callers, already written as JSON."""

    def __init__(
        self,
        admission: Admission,
        long_searches: SideWork,
        live_bundle: LiveBundle,
        live_clusters: LiveClusters,
        metrics: Metrics,
    ) -> None:
        self._admission = admission
        self._long_searches = long_searches
        self._live_bundle = live_bundle
        self._live_clusters = live_clusters
        self._metrics = metrics
        self._company = Company(self._give, COMPANY, COMPANY // AT_ONCE * MUCH_WORK)

    async def answer_one(self, request: Request, live: Live, asked: RetrieveRequest) -> bytes:
        """Return the answer to one user's question; found together with others that wait.

        Raises what the admission raises, what `prepare_users` raises, and BusyError.
        """
        work = work_of(live, asked)
        if work > MUCH_WORK:
            return (await self.answer(request, live, prepare_users, [asked]))[0]
        joined = self._live_clusters.current()
        waiting = Waiting(live, asked, work)
        self._company.enter(waiting)
        try:
            take = partial(self._take_one, waiting, joined)
            body = await self._admission.run(request, take, waiting.is_found)
        finally:
            self._company.leave(waiting)
        if body is not None:
            return body
        turns = self._turns_of(live, joined, prepare_users, [asked])
        if waiting.given is not None:
            turns.given[0] = waiting.given  # read and encoded already
        return await self._at_length(turns, 0)

    def _give(self, live: Live, asked: Sequence[RetrieveRequest]) -> list[Given]:
        denied = self._live_bundle.denied_of(live)
        return give(live, prepare_users, asked, denied, self._metrics)

    def _take_one(self, waiting: Waiting, joined: Joined | None) -> bytes | None:
        live, given = waiting.live, self._company.answer(waiting)
        denied = self._live_bundle.denied_of(live)
        return written(live, joined, waiting.asked.include, given, denied, self._metrics)

    async def answer(
        self,
        request: Request,
        live: Live,
        prepare: Prepare[One],
        asked: Sequence[One],
    ) -> list[bytes]:
        """Return an answer for each question, as if each had been asked alone.

        prepare  makes some of the questions ready for the search

        Raises what the admission raises, what `prepare` raises, and BusyError.
        """
        turns = self._turns_of(live, self._live_clusters.current(), prepare, asked)
        works = [partial(turns.take, place) for place in range(len(asked))]
        bodies = await self._admission.run_all(request, works)
        return [
            body if body is not None else await self._at_length(turns, place)
            for place, body in enumerate(bodies)
        ]

    def _turns_of(
        self, live: Live, joined: Joined | None, prepare: Prepare[One], asked: Sequence[One]
    ) -> "Turns[One]":
        denied = partial(self._live_bundle.denied_of, live)
        return Turns(live, joined, prepare, asked, self._metrics, denied)

    async def _at_length(self, turns: "Turns[One]", place: int) -> bytes:
        body = await self._long_searches.run(partial(turns.take_long, place))
        assert body is not None  # whatever it takes
        return body


@dataclass
class Turns(Generic[One]):
    """Questions asked together, of one bundle and one map; taken in their order.

    denied  asked before each answer: what was denied while one waited comes no more
    given   place -> what came of it, until it is told
    """

    live: Live
    joined: Joined | None
    prepare: Prepare[One]
    asked: Sequence[One]
    metrics: Metrics
    denied: Callable[[], RowSet | None]
    given: dict[int, Given] = field(default_factory=dict)

    def take(self, place: int) -> bytes | None:
        """Answer the question at a place; None if that takes a long search or look-up."""
        denied = self.denied()
        if place not in self.given:
            if texts_of(self.asked[place]) > MANY_TEXTS:
                return None
            self._give_from(place, denied)
        body = self._written(place, self.given[place], denied)
        if body is not None:
            del self.given[place]  # 256 answers of a batch would be much to keep
        return body

    def take_long(self, place: int) -> bytes | None:
        """Answer the question at a place, whatever it takes."""
        if place in self.given:
            prepared = self.given[place].prepared
        else:
            with self.metrics.encode_s.time():
                (prepared,) = self.prepare(self.live, [self.asked[place]])
        denied = self.denied()
        with self.metrics.search_s.time():
            answer = self.live.retriever.finish(prepared, denied)
        return self._written(place, Given(prepared, answer, None, denied), denied)

    def _give_from(self, place: int, denied: RowSet | None) -> None:
        works = [work_of(self.live, one) for one in self.asked[place : place + AT_ONCE]]
        chosen = self.asked[place : place + at_once(works)]
        given = give(self.live, self.prepare, chosen, denied, self.metrics)
        self.given.update(enumerate(given, start=place))

    def _written(self, place: int, given: Given, denied: RowSet | None) -> bytes | None:
        wanted = (self.joined, self.asked[place].include)
        return written(self.live, *wanted, given, denied, self.metrics)


def at_once(works: Sequence[int], most: int = AT_ONCE, most_work: int = MUCH_WORK) -> int:
    """Return how many of the next questions are answered in one turn; one at least.

    works  of each question
    """
    sums = accumulate(works[:most])
    return max(1, sum(total <= most_work for total in sums))


def work_of(live: Live, asked: RetrieveRequest | SimilarRequest) -> int:
    """Return about how much a question takes, in ids looked up: 1 to 2 us each.

    More than a turn may bring where it is a long search.
    """
    texts = texts_of(asked)
    if texts > MANY_TEXTS:
        return MUCH_WORK + 1
    return texts + asked.k + (FILTER_WORK if asked.filter else 0) + live.retriever.least_work


def texts_of(asked: RetrieveRequest | SimilarRequest) -> int:
    """Return how many ids and values a question makes one look up."""
    if isinstance(asked, SimilarRequest):
        return len(asked.exclude) + len(asked.filter)
    values = sum(map(len, asked.filter.values())) if asked.filter else 0
    return len(asked.history or ()) + len(asked.exclude) + values
