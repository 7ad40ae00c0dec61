"""The request queue: bounded, first in, first out, with one consumer in the event loop.

A handler that works inline never yields: other requests would wait unseen in their sockets,
neither counted nor refused nor dropped. Here they wait in one queue. The consumer processes for
about two milliseconds; then the loop reads, writes and answers /livez before the next turn.

Many queries looked up, encoded, searched and written at once cost much less than one by one.
Nobody waits for that: what waits behind the first in the queue is taken along (a micro-batch).
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, Generic, TypeVar, cast

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from service.errors import NoConsumerError, QueueFullError, QueueTimeoutError

Payload = TypeVar("Payload")
Result = TypeVar("Result")

SLICE_S = 0.002  # how long the consumer works before it lets the loop go round
ROUNDS = 3  # of the loop between two slices: responses go out, new requests are read
CHECK_AFTER_S = 0.05  # what waited longer is processed only if its client is still there
MAX_COST = 5_000  # of one part; a query costs its ids and values looked up, its k, and so on
MAX_JOBS = 64  # in a micro-batch: 10 ms
MAX_BATCH_COST = 2 * MAX_COST

log = logging.getLogger("service")


@dataclass(slots=True)
class Work(Generic[Payload, Result]):
    """What a request wants processed.

    Attributes:
        process: returns a result for each payload.
        parts: each is processed in one call; others have their turns in between.
        key: works with equal keys, of one part each, may share a call; None: never. It must not
            hold what the work is about: a dropped job is to hold nothing.
        cost: of the only part.
    """

    process: Callable[[Sequence[Payload]], Sequence[Result]]
    parts: Sequence[Sequence[Payload]]
    key: int | None = None
    cost: int = 0


class RequestQueue:
    """The queue and its consumer.

    Attributes:
        waiting: payloads admitted and not processed.
        is_running: whether there is a consumer.
    """

    def __init__(
        self,
        limit: int,
        timeout_s: float,
        waited: Callable[[float], None] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Let at most `limit` payloads wait; drop requests that wait for over `timeout_s`.

        Args:
            waited: called with the seconds that each request waited.
        """
        self.waiting = 0
        self.is_running = False
        self._limit = limit
        self._timeout_s = timeout_s
        self._waited = waited
        self._now = now
        self._jobs: deque[_Job] = deque()
        self._arrival = asyncio.Event()

    async def run(self, request: Request, work: Work[Any, Result]) -> list[Result]:
        """Return a result for each payload, once all are processed.

        A request is admitted whole or not at all; one that is larger than the limit is admitted
        while nobody waits. The queue timeout holds for the wait until its first part.

        Raises QueueFullError at once, QueueTimeoutError, ClientDisconnect where nobody waits for
        the response any more, NoConsumerError, and what `process` raises.
        """
        if not self.is_running:
            raise _stopped()
        job = _Job(request, work, self._now())
        if self.waiting and self.waiting + job.left > self._limit:
            raise QueueFullError(
                f"{self.waiting} questions wait for their turn, of at most {self._limit}; ask "
                "again after the seconds of Retry-After, or let the operator start replicas"
            )
        self.waiting += job.left
        self._jobs.append(job)
        self._arrival.set()
        try:
            assert job.done
            return await job.done
        finally:
            job.release()

    async def consume(self) -> None:
        """Process what waits, until cancelled; there is one such task."""
        self.is_running = True
        try:
            while True:
                await self._arrival.wait()
                self._process_slice(self._now())
                if not self._jobs:
                    self._arrival.clear()
                for _ in range(ROUNDS):
                    await asyncio.sleep(0)
        finally:
            self.is_running, self.waiting = False, 0
            while self._jobs:
                self._jobs.popleft().fail(_stopped())

    def _process_slice(self, now: float) -> None:
        ends = now + SLICE_S
        while self._jobs and now < ends:
            batch = [job for job in pop_batch(self._jobs) if self._is_due(job, now)]
            if not batch:
                continue
            payloads = [one for job in batch for one in job.parts[0]]
            try:  # the first one's cluster map serves all
                results = iter(batch[0].process(payloads))
            except Exception as error:
                self._fail(batch, error)
            else:
                for job in batch:
                    self.waiting -= len(job.parts[0])
                    job.finish_part(list(islice(results, len(job.parts[0]))))
                    if job.parts:
                        self._jobs.append(job)  # behind those who wait for less
            now = self._now()

    def _is_due(self, job: "_Job", now: float) -> bool:
        """Drop a job that came too late, or that nobody waits for."""
        if not job.is_begun and not job.is_over:
            job.is_begun, waited_s = True, now - job.came
            self._waited(waited_s)
            if waited_s > self._timeout_s:
                job.fail(
                    QueueTimeoutError(
                        f"the turn came after {waited_s * 1_000:.0f} ms, of at most "
                        f"{self._timeout_s * 1_000:.0f} ms; ask again after the seconds of "
                        "Retry-After, or let the operator start replicas"
                    )
                )
            elif waited_s > CHECK_AFTER_S and is_gone(job.request):
                job.fail(ClientDisconnect())
        if job.is_over:
            self.waiting -= job.left
        return not job.is_over

    def _fail(self, batch: "Sequence[_Job]", error: Exception) -> None:
        """Fail the only job; of several, process each by itself, whichever is at fault."""
        if len(batch) == 1:
            self.waiting -= batch[0].left
            batch[0].fail(error)
            return
        log.warning("a micro-batch failed; now one by one", exc_info=error)
        for job in reversed(batch):
            job.key = None
            self._jobs.appendleft(job)


class _Job:
    """A request in the queue.

    Attributes:
        parts: not processed yet.
        is_begun: whether its turn has come.
        is_over: whether nobody waits any more.
    """

    def __init__(self, request: Request, work: Work[Any, Any], came: float) -> None:
        self.request, self.came = request, came
        self.key, self.cost = work.key, work.cost
        self.process = work.process
        self.parts = deque(work.parts)
        self.is_begun = self.is_over = False
        self.done: asyncio.Future[list[Any]] | None
        self.done = asyncio.get_running_loop().create_future()
        self._results: list[Any] = []

    @property
    def left(self) -> int:
        """Return how many payloads are not processed."""
        return sum(map(len, self.parts))

    def finish_part(self, results: list[Any]) -> None:
        """Take the results of the first part; those of the last one complete the job."""
        self.parts.popleft()
        self._results += results
        if self.done and not self.parts and not self.done.done():
            self.done.set_result(self._results)

    def fail(self, error: Exception) -> None:
        """Raise an error where the job is waited for."""
        self.is_over = True
        if self.done and not self.done.done():
            self.done.set_exception(error)

    def release(self) -> None:
        """Hold nothing: an error's traceback holds this job, and `done` the error.

        In such a cycle a whole bundle would live on until Python looks for cycles.
        """
        self.is_over, self.done = True, None
        self.process = _process_nothing


def pop_batch(queue: "deque[_Job]") -> "list[_Job]":
    """Pop the first job, and those directly behind it that may share its call."""
    batch = [queue.popleft()]
    key, cost = batch[0].key, batch[0].cost
    while key is not None and queue and len(batch) < MAX_JOBS:
        cost += queue[0].cost
        if queue[0].key != key or cost > MAX_BATCH_COST:
            break
        batch.append(queue.popleft())
    return batch


def split(
    payloads: Sequence[Any], costs: Sequence[int], most: int, max_cost: int = MAX_COST
) -> list[Sequence[Any]]:
    """Split the payloads of one request into parts; one that costs more is a part by itself."""
    parts, begin = [], 0
    while begin < len(payloads):
        sums = accumulate(costs[begin : begin + most])
        end = begin + max(1, sum(total <= max_cost for total in sums))
        parts.append(payloads[begin:end])
        begin = end
    return parts


def _process_nothing(_: Sequence[Any]) -> Sequence[Any]:
    return ()


def _stopped() -> NoConsumerError:
    return NoConsumerError("questions are not answered here any more; ask another replica")


def is_gone(request: Request) -> bool:
    """Return whether the client has hung up, without waiting; its body must have been read."""
    message = received(request.receive)
    return message is not None and message["type"] == "http.disconnect"


def received(receive: Receive) -> Message | None:
    """Return the next message if it is there already; None if one would have to wait."""
    pending = cast(Coroutine[Any, Any, Message], receive())
    try:
        pending.send(None)
    except StopIteration as finished:
        message: Message = finished.value
        return message
    finally:
        pending.close()
    return None
