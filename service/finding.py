"""How questions reach the live bundle: each in a turn of its own, the long ones beside them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from starlette.requests import Request

from index.retriever import Answer, Prepared
from service.admission import Admission
from service.answering import tell
from service.bodies import json_bytes
from service.live.live_bundle import Live
from service.live.live_clusters import Joined, LiveClusters
from service.metrics import Metrics
from service.parts import parts_of
from service.schemas.retrieval import RetrieveRequest
from service.schemas.similar import SimilarRequest
from service.side_work import SideWork

One = TypeVar("One", RetrieveRequest, SimilarRequest)
Prepare = Callable[[Live, Sequence[One]], Sequence[Prepared]]


class Finder:
    """Answers questions for callers, already written as JSON."""

    def __init__(
        self,
        admission: Admission,
        long_searches: SideWork,
        live_clusters: LiveClusters,
        metrics: Metrics,
    ) -> None:
        self._admission = admission
        self._long_searches = long_searches
        self._live_clusters = live_clusters
        self._metrics = metrics

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
        joined = self._live_clusters.current()
        parts = iter(parts_of([one.id_count for one in asked]))
        turns = Turns(live, joined, prepare, asked, parts, self._metrics)
        works = [partial(turns.take, place) for place in range(len(asked))]
        written = await self._admission.run_all(request, works)
        return [
            body if body is not None else await self._at_length(turns, place)
            for place, body in enumerate(written)
        ]

    async def _at_length(self, turns: "Turns[One]", place: int) -> bytes:
        return await self._long_searches.run(partial(turns.take_long, place))


@dataclass
class Turns(Generic[One]):
    """Questions asked together, of one bundle and one map; taken in their order.

    parts     those that are made ready together, next
    prepared  those that are ready so far
    """

    live: Live
    joined: Joined | None
    prepare: Prepare[One]
    asked: Sequence[One]
    parts: Iterator[slice]
    metrics: Metrics
    prepared: list[Prepared] = field(default_factory=list)

    def take(self, place: int) -> bytes | None:
        """Answer the question at a place; None if only a long search would."""
        if place == len(self.prepared):
            with self.metrics.encode_s.time():
                self.prepared += self.prepare(self.live, self.asked[next(self.parts)])
        with self.metrics.search_s.time():
            question = self.prepared[place]
            answer = self.live.retriever.finish_quickly(question, self.live.denied)
        return None if answer is None else self._written(place, answer)

    def take_long(self, place: int) -> bytes:
        """Answer the question at a place, whatever it takes."""
        with self.metrics.search_s.time():
            answer = self.live.retriever.finish(self.prepared[place], self.live.denied)
        return self._written(place, answer)

    def _written(self, place: int, answer: Answer) -> bytes:
        self.metrics.count_answer(answer, self.prepared[place])
        with self.metrics.write_s.time():
            return json_bytes(tell(self.live, self.joined, answer, self.asked[place].include))
