"""The door to the event loop's own work: one bounded queue, one consumer.

A handler that works inline never yields: what else has come would wait unseen in the sockets,
neither counted nor turned away nor dropped. Here it waits in one queue. The consumer does one
work after the other for about two milliseconds; then the loop reads, writes and answers /livez
before the next turn. What was found along with another's answer is told in the same turn: then
those callers ask again at the same time, and are answered together again.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect, Request

from index.errors import RequestError
from service.bodies import received

Result = TypeVar("Result")

TURN_S = 0.002  # how long the consumer works before it lets the loop go round
ROUNDS = 3  # of the loop between two turns: answers go out, what comes back for them is read
ASK_AFTER_S = 0.05  # what waited longer is done only if its client is still there


class QueueFullError(RequestError):
    """As much waits already as may."""


class OutOfTimeError(RequestError):
    """The turn came too late."""


class NoConsumerError(RequestError):
    """Nobody does what waits: the service begins, ends, or has failed."""


class Admission:
    """The queue and its consumer.

    waiting     questions admitted whose turn has not come
    is_running  whether there is a consumer
    """

    def __init__(
        self,
        limit: int,
        budget_s: float,
        waited: Callable[[float], None] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Let at most `limit` questions wait; drop what waits over `budget_s`.

        waited  told of each request how long it waited, in seconds
        """
        self.waiting = 0
        self.is_running = False
        self._limit = limit
        self._budget_s = budget_s
        self._waited = waited
        self._now = now
        self._queue: deque[_Place[Any]] = deque()
        self._arrival = asyncio.Event()

    async def run(
        self,
        request: Request,
        work: Callable[[], Result],
        is_found: Callable[[], bool] = lambda: False,
    ) -> Result:
        """Return what the work returns, or raise what it raises, once its turn has come.

        is_found  whether hardly any work is left, since it was done along with another's

        Raises QueueFullError at once, OutOfTimeError after the budget, ClientDisconnect where
        nobody waits for the answer any more.
        """
        return (await self.run_all(request, (work,), is_found))[0]

    async def run_all(
        self,
        request: Request,
        works: Sequence[Callable[[], Result]],
        is_found: Callable[[], bool] = lambda: False,
    ) -> list[Result]:
        """Return what each of a batch returns; others have their turns in between.

        Raises as `run` does. A batch is admitted whole or not at all; one that is larger than
        the limit is admitted while nobody waits.
        """
        if not self.is_running:
            raise _stopped()
        if self.waiting and self.waiting + len(works) > self._limit:
            raise QueueFullError(
                f"{self.waiting} questions wait for their turn, of at most {self._limit}; ask "
                "again after the seconds of Retry-After, or let the operator start replicas"
            )
        place = _Place(request, works, self._now(), is_found)
        self.waiting += len(works)
        self._queue.append(place)
        self._arrival.set()
        try:
            return await place.answer()
        finally:
            place.let_go()

    async def consume(self) -> None:
        """Do what waits, until cancelled; there is one such task."""
        self.is_running = True
        try:
            while True:
                await self._arrival.wait()
                self._take_turn(self._now())
                if not self._queue:
                    self._arrival.clear()
                for _ in range(ROUNDS):
                    await asyncio.sleep(0)
        finally:
            self.is_running, self.waiting = False, 0
            while self._queue:
                self._queue.popleft().give_up(_stopped())

    def _take_turn(self, now: float) -> None:
        ends = now + TURN_S
        while self._queue and (now < ends or self._queue[0].is_found()):
            place = self._queue.popleft()
            before = place.left
            if not place.results:
                self._check(place, now - place.came)
            while place.left and (now < ends or place.is_found()):
                place.do_one()
                now = self._now()
            self.waiting -= before - place.left
            if place.left:
                self._queue.append(place)  # behind those who wait for less

    def _check(self, place: "_Place[Any]", waited_s: float) -> None:
        """Give up what came too late, or what nobody waits for."""
        self._waited(waited_s)
        if waited_s > self._budget_s:
            place.give_up(
                OutOfTimeError(
                    f"the turn came after {waited_s * 1_000:.0f} ms, of at most "
                    f"{self._budget_s * 1_000:.0f} ms; ask again after the seconds of "
                    "Retry-After, or let the operator start replicas"
                )
            )
        elif waited_s > ASK_AFTER_S and is_gone(place.request):
            place.give_up(ClientDisconnect())


class _Place(Generic[Result]):
    """Where a request stands in the queue, and what is still to be done for it.

    left      works not done yet
    is_found  whether doing them takes hardly any time
    """

    def __init__(
        self,
        request: Request,
        works: Sequence[Callable[[], Result]],
        came: float,
        is_found: Callable[[], bool],
    ) -> None:
        self.request = request
        self.came = came
        self.is_found = is_found
        self.left = len(works)
        self.results: list[Result] = []
        self.done: asyncio.Future[list[Result]] | None
        self.done = asyncio.get_running_loop().create_future()
        self._works = works

    async def answer(self) -> list[Result]:
        """Wait until all is done, or given up."""
        assert self.done
        return await self.done

    def do_one(self) -> None:
        """Do the next work; the last one brings the answer."""
        if self.done is None or self.done.done():  # cancelled: the server closes
            self.left = 0
            return
        try:
            self.results.append(self._works[-self.left]())
        except Exception as error:
            self.give_up(error)
            return
        self.left -= 1
        if not self.left:
            self.done.set_result(self.results)

    def let_go(self) -> None:
        """Hold nothing any more: an error's traceback holds this place, and `done` the error.

        In such a ring a whole bundle would live on until Python looks for rings.
        """
        self._works, self.done, self.is_found = (), None, lambda: False

    def give_up(self, error: Exception) -> None:
        """Do nothing more for it, and say why."""
        self.left = 0
        if self.done and not self.done.done():
            self.done.set_exception(error)


def _stopped() -> NoConsumerError:
    return NoConsumerError("questions are not answered here any more; ask another replica")


def is_gone(request: Request) -> bool:
    """Say whether the client has hung up, without waiting for anything.

    The body must have been read: then the server has nothing to tell but that.
    """
    message = received(request)
    return message is not None and message["type"] == "http.disconnect"
