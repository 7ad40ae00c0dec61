"""How questions reach the live bundle: each in a turn of its own, the long ones beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Generic, TypeVar

from starlette.requests import Request

from index.retriever import Answer, Prepared
from index.searching.row_set import RowSet
from service.admission import Admission
from service.answering import prepare_users, tell
from service.bodies import json_bytes
from service.company import Company, Waiting
from service.live.live_bundle import Live, LiveBundle
from service.live.live_clusters import Joined, LiveClusters
from service.metrics import Metrics
from service.schemas.retrieval import RetrieveRequest
from service.schemas.similar import SimilarRequest
from service.side_work import SideWork

AT_ONCE = 16  # questions made ready in one turn, 2 to 3 ms: more would only hold up others
MANY_TEXTS = (
    2_000  # ids and values that are looked up in as long; with more, it is a long search
)

One = TypeVar("One", RetrieveRequest, SimilarRequest)
Prepare = Callable[[Live, Sequence[One]], Sequence[Prepared]]


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
        self._company = Company(AT_ONCE, MANY_TEXTS)

    async def answer_one(self, request: Request, live: Live, asked: RetrieveRequest) -> bytes:
        """Return the answer to one user's question; made ready with others that wait.

        Raises what the admission raises, what `prepare_users` raises, and BusyError.
        """
        text_count = texts_of(asked)
        if text_count > MANY_TEXTS:
            return (await self.answer(request, live, prepare_users, [asked]))[0]
        turns = self._turns_of(live, prepare_users, [asked])
        waiting = Waiting(live, asked, text_count)
        with self._company.waiting(waiting):
            work = partial(self._take_one, turns, waiting)
            body = await self._admission.run(request, work)
        return await self._at_length(turns, 0) if body is None else body

    def _take_one(self, turns: "Turns[RetrieveRequest]", waiting: Waiting) -> bytes | None:
        if waiting.prepared is None:
            with self._metrics.encode_s.time():
                self._company.get_ready(waiting)
        assert waiting.prepared is not None
        turns.prepared[0] = waiting.prepared
        return turns.take(0)

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
        turns = self._turns_of(live, prepare, asked)
        works = [partial(turns.take, place) for place in range(len(asked))]
        written = await self._admission.run_all(request, works)
        return [
            body if body is not None else await self._at_length(turns, place)
            for place, body in enumerate(written)
        ]

    def _turns_of(
        self, live: Live, prepare: Prepare[One], asked: Sequence[One]
    ) -> "Turns[One]":
        joined = self._live_clusters.current()
        denied = partial(self._live_bundle.denied_of, live)
        return Turns(live, joined, prepare, asked, self._metrics, denied)

    async def _at_length(self, turns: "Turns[One]", place: int) -> bytes:
        return await self._long_searches.run(partial(turns.take_long, place))


@dataclass
class Turns(Generic[One]):
    """Questions asked together, of one bundle and one map; taken in their order.

    denied    asked before each search: what was denied while one waited comes no more
    prepared  place -> what is ready so far
    """

    live: Live
    joined: Joined | None
    prepare: Prepare[One]
    asked: Sequence[One]
    metrics: Metrics
    denied: Callable[[], RowSet | None]
    prepared: dict[int, Prepared] = field(default_factory=dict)

    def take(self, place: int) -> bytes | None:
        """Answer the question at a place; None if that takes a long search or look-up."""
        if place not in self.prepared:
            if texts_of(self.asked[place]) > MANY_TEXTS:
                return None
            next_ones = self.asked[place : place + AT_ONCE]
            self._get_ready(place, place + at_once([texts_of(one) for one in next_ones]))
        with self.metrics.search_s.time():
            question = self.prepared[place]
            answer = self.live.retriever.finish_quickly(question, self.denied())
        return None if answer is None else self._written(place, answer)

    def take_long(self, place: int) -> bytes:
        """Answer the question at a place, whatever it takes."""
        if place not in self.prepared:
            self._get_ready(place, place + 1)
        with self.metrics.search_s.time():
            answer = self.live.retriever.finish(self.prepared[place], self.denied())
        return self._written(place, answer)

    def _get_ready(self, begin: int, end: int) -> None:
        with self.metrics.encode_s.time():
            ready = self.prepare(self.live, self.asked[begin:end])
        self.prepared.update(zip(range(begin, end), ready, strict=True))

    def _written(self, place: int, answer: Answer) -> bytes:
        self.metrics.count_answer(answer, self.prepared[place])
        with self.metrics.write_s.time():
            return json_bytes(tell(self.live, self.joined, answer, self.asked[place].include))


def at_once(text_counts: Sequence[int]) -> int:
    """Return how many of the next questions are made ready in one turn; one at least.

    text_counts  of each question, how many texts it makes one look up
    """
    sums = accumulate(text_counts[:AT_ONCE])
    return max(1, sum(total <= MANY_TEXTS for total in sums))


def texts_of(asked: RetrieveRequest | SimilarRequest) -> int:
    """Return how many ids and values a question makes one look up."""
    if isinstance(asked, SimilarRequest):
        return len(asked.exclude) + len(asked.filter)
    values = sum(map(len, asked.filter.values()))
    return len(asked.history or ()) + len(asked.exclude) + values
