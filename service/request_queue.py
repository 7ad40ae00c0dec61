"""Request queue: bounded, FIFO, with one consumer in the event loop.

A handler that works inline never yields: other requests would wait in their sockets, where they
are neither counted nor rejected nor dropped. Here they wait in one queue. The consumer processes
for about two milliseconds, then yields so that the loop reads, writes and serves /livez.

Encoding, searching and writing many queries together costs much less than one by one. So jobs
that already wait directly behind the first share its call (a micro-batch); no job waits for more
to arrive.
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

SLICE_S = 0.002  # processing time before the consumer yields to the event loop
LOOP_CYCLES = 3  # of the event loop between two slices: send responses, read new requests
DISCONNECT_CHECK_S = 0.05  # after a longer wait, check that the client is still connected
MAX_COST = 5_000  # of one part; see `retrieval_service.estimate_cost`
MAX_JOBS = 64  # in a micro-batch: 10 ms
MAX_BATCH_COST = 2 * MAX_COST

log = logging.getLogger("service")


@dataclass(slots=True)
class Work(Generic[Payload, Result]):
    """Work of one request.

    Attributes:
        process: returns a result for each payload.
        parts: each is processed in one call; jobs of other requests run in between.
        key: jobs with equal keys and a single part may share a call; None: never. It must not
            reference what is processed, because a dropped job must not keep anything alive.
        cost: of the single part.
    """

    process: Callable[[Sequence[Payload]], Sequence[Result]]
    parts: Sequence[Sequence[Payload]]
    key: int | None = None
    cost: int = 0


class RequestQueue:
    """Bounded queue and its consumer.

    Attributes:
        num_waiting: admitted payloads that are not processed yet.
        is_running: whether there is a consumer.
    """

    def __init__(
        self,
        limit: int,
        timeout_s: float,
        observe_wait: Callable[[float], None] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a queue of at most `limit` payloads.

        Args:
            timeout_s: requests that wait longer are dropped.
            observe_wait: called with the seconds that each request waited.
        """
        self.num_waiting = 0
        self.is_running = False
        self._limit = limit
        self._timeout_s = timeout_s
        self._observe_wait = observe_wait
        self._now = now
        self._jobs: deque[_Job] = deque()
        self._has_jobs = asyncio.Event()

    async def run(self, request: Request, work: Work[Any, Result]) -> list[Result]:
        """Return a result for each payload, once all are processed.

        A request is admitted whole or not at all; one larger than the limit is admitted if the
        queue is empty. The queue timeout covers the wait until its first part is processed.

        Raises:
            QueueFullError: at once.
            QueueTimeoutError: the request waited too long.
            ClientDisconnect: the client closed the connection.
            NoConsumerError: the consumer is not running.
            Exception: whatever `process` raises.
        """
        if not self.is_running:
            raise _no_consumer_error()
        job = _Job(request, work, self._now())
        if self.num_waiting and self.num_waiting + job.num_payloads > self._limit:
            raise QueueFullError(
                f"the request queue holds {self.num_waiting} queries, its limit is "
                f"{self._limit}; retry after the seconds in Retry-After, or start more replicas"
            )
        self.num_waiting += job.num_payloads
        self._jobs.append(job)
        self._has_jobs.set()
        try:
            assert job.future
            return await job.future
        finally:
            job.release()

    async def consume(self) -> None:
        """Process jobs until cancelled; run one such task only."""
        self.is_running = True
        try:
            while True:
                await self._has_jobs.wait()
                self._process_slice(self._now())
                if not self._jobs:
                    self._has_jobs.clear()
                for _ in range(LOOP_CYCLES):
                    await asyncio.sleep(0)
        finally:
            self.is_running, self.num_waiting = False, 0
            while self._jobs:
                self._jobs.popleft().fail(_no_consumer_error())

    def _process_slice(self, now: float) -> None:
        deadline = now + SLICE_S
        while self._jobs and now < deadline:
            batch = [job for job in pop_batch(self._jobs) if self._start(job, now)]
            if not batch:
                continue
            payloads = [payload for job in batch for payload in job.parts[0]]
            try:  # the first job's cluster map serves the whole batch
                results = iter(batch[0].process(payloads))
            except Exception as error:
                self._fail(batch, error)
            else:
                for job in batch:
                    self.num_waiting -= len(job.parts[0])
                    job.finish_part(list(islice(results, len(job.parts[0]))))
                    if job.parts:
                        self._jobs.append(job)  # at the end: shorter jobs go first
            now = self._now()

    def _start(self, job: "_Job", now: float) -> bool:
        """Start a job, or drop it if it is late or abandoned; return whether to process it."""
        if not job.is_started and not job.is_closed:
            job.is_started, waited_s = True, now - job.enqueued_at
            self._observe_wait(waited_s)
            if waited_s > self._timeout_s:
                job.fail(
                    QueueTimeoutError(
                        f"the request waited {waited_s * 1_000:.0f} ms, the queue timeout is "
                        f"{self._timeout_s * 1_000:.0f} ms; retry after the seconds in "
                        "Retry-After, or start more replicas"
                    )
                )
            elif waited_s > DISCONNECT_CHECK_S and is_disconnected(job.request):
                job.fail(ClientDisconnect())
        if job.is_closed:
            self.num_waiting -= job.num_payloads
        return not job.is_closed

    def _fail(self, batch: "Sequence[_Job]", error: Exception) -> None:
        """Fail a single job; process several one by one to isolate the failing job."""
        if len(batch) == 1:
            self.num_waiting -= batch[0].num_payloads
            batch[0].fail(error)
            return
        log.warning("micro-batch failed; processing its jobs one by one", exc_info=error)
        for job in reversed(batch):
            job.key = None
            self._jobs.appendleft(job)


class _Job:
    """A request in the queue.

    Attributes:
        parts: not processed yet.
        is_started: whether the consumer has reached it.
        is_closed: whether its caller no longer waits.
    """

    def __init__(self, request: Request, work: Work[Any, Any], enqueued_at: float) -> None:
        self.request, self.enqueued_at = request, enqueued_at
        self.key, self.cost = work.key, work.cost
        self.process = work.process
        self.parts = deque(work.parts)
        self.is_started = self.is_closed = False
        self.future: asyncio.Future[list[Any]] | None
        self.future = asyncio.get_running_loop().create_future()
        self._results: list[Any] = []

    @property
    def num_payloads(self) -> int:
        """Return the number of payloads not processed yet."""
        return sum(map(len, self.parts))

    def finish_part(self, results: list[Any]) -> None:
        """Store the results of the first part; the last part completes the job."""
        self.parts.popleft()
        self._results += results
        if self.future and not self.parts and not self.future.done():
            self.future.set_result(self._results)

    def fail(self, error: Exception) -> None:
        """Close the job and raise an error in its caller."""
        self.is_closed = True
        if self.future and not self.future.done():
            self.future.set_exception(error)

    def release(self) -> None:
        """Close the job and drop its references.

        An error's traceback references this job, and `future` references the error. The cycle
        would keep a whole bundle alive until the garbage collector runs.
        """
        self.is_closed, self.future = True, None
        self.process = _process_nothing


def pop_batch(queue: "deque[_Job]") -> "list[_Job]":
    """Pop the first job and those directly behind it that may share its call."""
    batch = [queue.popleft()]
    key, cost = batch[0].key, batch[0].cost
    while key is not None and queue and len(batch) < MAX_JOBS:
        cost += queue[0].cost
        if queue[0].key != key or cost > MAX_BATCH_COST:
            break
        batch.append(queue.popleft())
    return batch


def split(
    payloads: Sequence[Any], costs: Sequence[int], max_size: int, max_cost: int = MAX_COST
) -> list[Sequence[Any]]:
    """Split the payloads of a request into parts; a payload above `max_cost` is its own part."""
    parts, begin = [], 0
    while begin < len(payloads):
        sums = accumulate(costs[begin : begin + max_size])
        end = begin + max(1, sum(total <= max_cost for total in sums))
        parts.append(payloads[begin:end])
        begin = end
    return parts


def _process_nothing(_: Sequence[Any]) -> Sequence[Any]:
    return ()


def _no_consumer_error() -> NoConsumerError:
    return NoConsumerError("this replica is not processing queries; retry on another replica")


def is_disconnected(request: Request) -> bool:
    """Return whether the client has disconnected, without waiting; read the body first."""
    message = receive_nowait(request.receive)
    return message is not None and message["type"] == "http.disconnect"


def receive_nowait(receive: Receive) -> Message | None:
    """Return the next message if it is available; None if receiving would block."""
    pending = cast(Coroutine[Any, Any, Message], receive())
    try:
        pending.send(None)
    except StopIteration as finished:
        message: Message = finished.value
        return message
    finally:
        pending.close()
    return None
