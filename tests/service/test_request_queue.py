import asyncio
import gc
import weakref
from contextlib import asynccontextmanager, suppress

import pytest
from starlette.requests import ClientDisconnect, Request

from service.errors import NoConsumerError, QueueFullError, QueueTimeoutError
from service.request_queue import DISCONNECT_CHECK_S, SLICE_S, RequestQueue, Work


class Clock:
    """Clock that a test advances."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def taking(self, seconds, result=None):
        """Return a function that takes so long."""

        def work():
            self.now += seconds
            return result

        return work


def client(is_disconnected=False):
    """Build a request whose client is connected or not."""

    async def receive():
        if not is_disconnected:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


@asynccontextmanager
async def consuming(queue):
    """Run the consumer of a queue."""
    task = asyncio.create_task(queue.consume())
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def make_queue(clock=None, limit=4, timeout_s=1.0, **more):
    return RequestQueue(limit, timeout_s, now=clock or Clock(), **more)


def separate_parts(*works):
    """Build work with one part for each function."""
    return Work(lambda part: [work() for work in part], [[work] for work in works])


async def run(queue, work, is_disconnected=False):
    """Run a request that calls one function; return its result."""
    (result,) = await queue.run(client(is_disconnected), separate_parts(work))
    return result


def run_all(*requests, queue=None):
    """Run requests that arrive together; return the result or error of each."""
    queue = queue or make_queue()

    async def scenario():
        async with consuming(queue):
            tasks = [asyncio.create_task(request(queue)) for request in requests]
            return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(scenario())


def request_of(work, is_disconnected=False):
    return lambda queue: run(queue, work, is_disconnected)


def test_run_returns_result():
    assert run_all(request_of(lambda: "found")) == ["found"]


def test_run_raises_error_only_in_its_caller():
    def fail():
        raise ValueError("the cause")

    failed, result = run_all(request_of(fail), request_of(lambda: "found"))
    assert str(failed) == "the cause"
    assert result == "found"


def test_jobs_are_processed_in_fifo_order():
    order = []
    run_all(
        *(request_of(lambda position=position: order.append(position)) for position in range(4))
    )
    assert order == [0, 1, 2, 3]


def test_run_when_full_raises_queue_full():
    clock = Clock()
    works = [request_of(clock.taking(SLICE_S, position)) for position in range(6)]
    *admitted, fifth, sixth = run_all(*works, queue=make_queue(clock, limit=4))
    assert admitted == [0, 1, 2, 3]
    assert isinstance(fifth, QueueFullError)
    assert str(sixth).startswith("the request queue holds 4 queries, its limit is 4; retry")


def test_micro_batch_results_return_in_same_slice():
    clock, calls = Clock(), []
    key = 1

    def process(names):
        clock.now += SLICE_S
        calls.append(names)
        return [name.upper() for name in names]

    async def scenario():
        queue = make_queue(clock)
        async with consuming(queue):
            works = [Work(process, [[name]], key=key) for name in "abc"]
            works.append(Work(process, [["d"]], key=2))
            tasks = [asyncio.create_task(queue.run(client(), work)) for work in works]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finished = [task.result() for task in tasks if task.done()]  # after one slice
            await asyncio.gather(*tasks)
            return finished

    assert asyncio.run(scenario()) == [["A"], ["B"], ["C"]]
    assert calls == [["a", "b", "c"], ["d"]]


def test_concurrent_callers_converge_into_micro_batches():
    batches, key = [], 1

    async def scenario():
        queue = make_queue(limit=64)

        def process(part):
            batches.append(len(part))
            return part

        async def caller(late):
            for _ in range(late):
                await asyncio.sleep(0)
            for _ in range(8):
                await queue.run(client(), Work(process, [[1]], key=key))
                await asyncio.sleep(0)  # the response goes out, the next query comes in

        async with consuming(queue):
            await asyncio.gather(*(caller(late=position % 2) for position in range(8)))

    asyncio.run(scenario())
    assert batches[:2] == [4, 8]  # four that arrived during the first call, and the four of it


def test_cancelled_job_is_left_out_of_micro_batch():
    key, clock, batches = 1, Clock(), []

    def process(part):
        batches.append(part)
        return part

    async def scenario():
        queue = make_queue(clock)
        async with consuming(queue):
            slow = asyncio.ensure_future(run(queue, clock.taking(SLICE_S)))
            works = [Work(process, [[name]], key) for name in ("a", "cancelled", "b")]
            first, second, last = [
                asyncio.ensure_future(queue.run(client(), work)) for work in works
            ]
            await asyncio.sleep(0)
            second.cancel()
            assert await asyncio.gather(slow, first, last) == [None, ["a"], ["b"]]
            assert queue.num_waiting == 0

    asyncio.run(scenario())
    assert batches == [["a", "b"]]


def test_micro_batch_error_fails_only_its_job():
    key, clock, waits = 1, Clock(), []

    def process(part):
        if "bad" in part:
            raise ValueError("the cause")
        return part

    def named_request(name):
        return lambda queue: queue.run(client(), Work(process, [[name]], key=key))

    queue = make_queue(clock, observe_wait=waits.append)
    first, failed, last = run_all(*map(named_request, ["good", "bad", "fine"]), queue=queue)
    assert (first, last) == (["good"], ["fine"])
    assert str(failed) == "the cause"
    assert (queue.num_waiting, waits) == (0, [0.0] * 3)


def test_rejected_request_leaves_count_unchanged():
    queue = make_queue(limit=1)
    run_all(*[request_of(lambda: None)] * 3, queue=queue)
    assert queue.num_waiting == 0


def test_job_after_queue_timeout_is_not_processed():
    clock, done = Clock(), []
    slow, late = run_all(
        request_of(clock.taking(2.0, "slow")),
        request_of(lambda: done.append("late")),
        queue=make_queue(clock, timeout_s=1.0),
    )
    assert slow == "slow"
    assert isinstance(late, QueueTimeoutError)
    assert str(late).startswith("the request waited 2000 ms, the queue timeout is 1000 ms; retry")
    assert done == []


@pytest.mark.parametrize(("waited_s", "is_done"), [(2 * DISCONNECT_CHECK_S, False), (0, True)])
def test_disconnected_client_is_dropped_after_wait(waited_s, is_done):
    clock, done = Clock(), []
    _, left = run_all(
        request_of(clock.taking(waited_s)),
        request_of(lambda: done.append("left"), is_disconnected=True),
        queue=make_queue(clock),
    )
    assert isinstance(left, ClientDisconnect) is not is_done
    assert bool(done) is is_done


def test_connected_client_is_served_after_long_wait():
    clock = Clock()
    slow = request_of(clock.taking(2 * DISCONNECT_CHECK_S))
    assert run_all(slow, request_of(lambda: "found"), queue=make_queue(clock))[1] == "found"


def test_other_jobs_run_between_parts_of_a_batch():
    clock, order = Clock(), []

    def work(name):
        def done():
            clock.now += SLICE_S
            order.append(name)
            return name

        return done

    batch, single = run_all(
        lambda queue: queue.run(client(), separate_parts(work("a"), work("b"), work("c"))),
        request_of(work("single")),
        queue=make_queue(clock),
    )
    assert batch == ["a", "b", "c"]
    assert single == "single"
    assert order == ["a", "single", "b", "c"]


def test_batch_is_admitted_whole_or_rejected():
    clock = Clock()
    batch = [clock.taking(SLICE_S, position) for position in range(8)]
    admitted, rejected = run_all(
        lambda queue: queue.run(client(), separate_parts(*batch)),
        lambda queue: queue.run(client(), separate_parts(*batch)),
        queue=make_queue(clock, limit=4),
    )
    assert admitted == list(range(8))
    assert isinstance(rejected, QueueFullError)


def test_rejected_batch_leaves_room_for_smaller_request():
    clock = Clock()
    batch = [clock.taking(SLICE_S, position) for position in range(3)]
    first, second, single = run_all(
        lambda queue: queue.run(client(), separate_parts(*batch)),
        lambda queue: queue.run(client(), separate_parts(*batch)),
        request_of(clock.taking(SLICE_S, "single")),
        queue=make_queue(clock, limit=4),
    )
    assert first == [0, 1, 2]
    assert isinstance(second, QueueFullError)
    assert single == "single"


def test_event_loop_runs_between_slices():
    clock, order = Clock(), []

    async def scenario():
        queue = make_queue(clock)
        async with consuming(queue):
            works = [run(queue, clock.taking(SLICE_S)) for _ in range(3)]
            tasks = [asyncio.ensure_future(work) for work in works]
            while not all(task.done() for task in tasks):
                order.append(queue.num_waiting)
                await asyncio.sleep(0)

    asyncio.run(scenario())
    assert set(order) >= {3, 2, 1}


def test_observe_wait_receives_waits():
    clock, waits = Clock(), []
    queue = make_queue(clock, observe_wait=waits.append)
    run_all(request_of(clock.taking(0.5)), request_of(clock.taking(0.5)), queue=queue)
    assert waits == [0.0, 0.5]


def test_cancelled_request_is_not_processed():
    clock, done = Clock(), []

    async def scenario():
        queue = make_queue(clock)
        async with consuming(queue):
            first = asyncio.ensure_future(run(queue, clock.taking(SLICE_S)))
            second = asyncio.ensure_future(run(queue, lambda: done.append(1)))
            await asyncio.sleep(0)
            second.cancel()
            await first
            await asyncio.sleep(0.01)
            assert (queue.num_waiting, done) == (0, [])

    asyncio.run(scenario())


def test_run_without_consumer_raises_no_consumer():
    clock = Clock()

    async def scenario():
        queue = make_queue(clock)
        with pytest.raises(NoConsumerError):
            await run(queue, lambda: None)
        async with consuming(queue) as consumer:
            assert queue.is_running
            waiting = asyncio.ensure_future(run(queue, lambda: None))
            await asyncio.sleep(0)
            consumer.cancel()
            with pytest.raises(NoConsumerError):
                await waiting
            assert not queue.is_running

    asyncio.run(scenario())


def test_queue_timeout_excludes_processing():
    clock = Clock()
    batch = [clock.taking(0.8, position) for position in range(3)]
    (result,) = run_all(
        lambda queue: queue.run(client(), separate_parts(*batch)), queue=make_queue(clock)
    )
    assert result == [0, 1, 2]


def test_dropped_request_releases_references():
    class Bundle:
        def search(self):
            return "found"

    async def scenario():
        clock, bundle = Clock(), Bundle()
        queue = make_queue(clock, timeout_s=1.0)
        async with consuming(queue):
            slow = asyncio.ensure_future(run(queue, clock.taking(2.0)))
            await asyncio.sleep(0)
            with suppress(QueueTimeoutError):
                await run(queue, bundle.search)
            held = weakref.ref(bundle)
            del bundle
            await slow
            await asyncio.sleep(0.01)  # the event loop holds an error until its next cycle
            return held() is None

    gc.disable()
    try:
        assert asyncio.run(scenario())
    finally:
        gc.enable()
