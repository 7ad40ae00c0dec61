import asyncio
import gc
import weakref
from contextlib import asynccontextmanager, suppress

import pytest
from starlette.requests import ClientDisconnect, Request

from service.errors import NoConsumerError, QueueFullError, QueueTimeoutError
from service.request_queue import CHECK_AFTER_S, SLICE_S, RequestQueue, Work


class Clock:
    """A time that passes only where a test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def taking(self, seconds, result=None):
        """Work that takes so long."""

        def work():
            self.now += seconds
            return result

        return work


def client(is_gone=False):
    """A request whose body was read; its client waits, or has hung up."""

    async def receive():
        if not is_gone:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


@asynccontextmanager
async def consumed(queue):
    task = asyncio.create_task(queue.consume())
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def queue(clock=None, limit=4, timeout_s=1.0, **more):
    return RequestQueue(limit, timeout_s, now=clock or Clock(), **more)


def one_by_one(*works):
    """Work of one part for each function, whose result is that part's only one."""
    return Work(lambda part: [work() for work in part], [[one] for one in works])


async def run(queue, work, is_gone=False):
    """The result of a request that wants one function called."""
    (result,) = await queue.run(client(is_gone), one_by_one(work))
    return result


def results(*requests, of=None):
    """What each of several requests is answered, or why not; all come at once."""
    door = of or queue()

    async def answered():
        async with consumed(door):
            waiting = [asyncio.create_task(request(door)) for request in requests]
            return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(answered())


def asking(work, is_gone=False):
    return lambda door: run(door, work, is_gone)


def test_a_work_is_done_and_its_result_returned():
    assert results(asking(lambda: "found")) == ["found"]


def test_what_a_work_raises_is_raised_where_it_is_waited_for_and_nowhere_else():
    def fail():
        raise ValueError("the cause")

    failed, found = results(asking(fail), asking(lambda: "found"))
    assert str(failed) == "the cause"
    assert found == "found"


def test_works_are_done_in_the_order_in_which_they_came():
    order = []
    results(*(asking(lambda place=place: order.append(place)) for place in range(4)))
    assert order == [0, 1, 2, 3]


def test_whoever_comes_to_a_full_queue_is_refused_at_once():
    clock = Clock()
    works = [asking(clock.taking(SLICE_S, place)) for place in range(6)]
    *found, fifth, sixth = results(*works, of=queue(clock, limit=4))
    assert found == [0, 1, 2, 3]
    assert isinstance(fifth, QueueFullError)
    assert str(sixth).startswith("4 questions wait for their turn, of at most 4; ask again")


def test_what_was_processed_in_one_call_is_told_in_the_same_turn():
    clock, calls = Clock(), []
    alike = 1

    def process(names):
        clock.now += SLICE_S
        calls.append(names)
        return [name.upper() for name in names]

    async def answered():
        door = queue(clock)
        async with consumed(door):
            works = [Work(process, [[name]], key=alike) for name in "abc"]
            works.append(Work(process, [["d"]], key=2))
            tasks = [asyncio.create_task(door.run(client(), one)) for one in works]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            told = [one.result() for one in tasks if one.done()]  # after one turn
            await asyncio.gather(*tasks)
            return told

    assert asyncio.run(answered()) == [["A"], ["B"], ["C"]]
    assert calls == [["a", "b", "c"], ["d"]]


def test_those_who_ask_again_at_once_come_to_be_answered_together():
    batches, alike = [], 1

    async def answered():
        door = queue(limit=64)

        def process(part):
            batches.append(len(part))
            return part

        async def caller(late):
            for _ in range(late):
                await asyncio.sleep(0)
            for _ in range(8):
                await door.run(client(), Work(process, [[1]], key=alike))
                await asyncio.sleep(0)  # the answer goes out, the next question comes in

        async with consumed(door):
            await asyncio.gather(*(caller(late=place % 2) for place in range(8)))

    asyncio.run(answered())
    assert batches[:2] == [4, 8]  # those who came while four were answered, and these four


def test_who_was_given_up_takes_no_part_in_a_micro_batch():
    alike, clock, batches = 1, Clock(), []

    def process(part):
        batches.append(part)
        return part

    async def answered():
        door = queue(clock)
        async with consumed(door):
            slow = asyncio.ensure_future(run(door, clock.taking(SLICE_S)))
            works = [Work(process, [[name]], alike) for name in ("a", "cancelled", "b")]
            first, gone, last = [asyncio.ensure_future(door.run(client(), one)) for one in works]
            await asyncio.sleep(0)
            gone.cancel()
            assert await asyncio.gather(slow, first, last) == [None, ["a"], ["b"]]
            assert door.waiting == 0

    asyncio.run(answered())
    assert batches == [["a", "b"]]


def test_one_at_fault_in_a_micro_batch_spoils_it_for_nobody_else():
    alike, clock, waits = 1, Clock(), []

    def process(part):
        if "bad" in part:
            raise ValueError("the cause")
        return part

    def asking_for(name):
        return lambda door: door.run(client(), Work(process, [[name]], key=alike))

    door = queue(clock, waited=waits.append)
    first, failed, last = results(*map(asking_for, ["good", "bad", "fine"]), of=door)
    assert (first, last) == (["good"], ["fine"])
    assert str(failed) == "the cause"
    assert (door.waiting, waits) == (0, [0.0] * 3)


def test_a_refused_request_leaves_no_trace_in_the_count():
    door = queue(limit=1)
    results(*[asking(lambda: None)] * 3, of=door)
    assert door.waiting == 0


def test_what_waited_longer_than_the_budget_is_refused_and_not_done():
    clock, done = Clock(), []
    slow, late = results(
        asking(clock.taking(2.0, "slow")),
        asking(lambda: done.append("late")),
        of=queue(clock, timeout_s=1.0),
    )
    assert slow == "slow"
    assert isinstance(late, QueueTimeoutError)
    assert str(late).startswith("the turn came after 2000 ms, of at most 1000 ms; ask again")
    assert done == []


@pytest.mark.parametrize(("waited_s", "is_done"), [(2 * CHECK_AFTER_S, False), (0, True)])
def test_what_a_client_left_is_dropped_if_it_waited_for_a_while(waited_s, is_done):
    clock, done = Clock(), []
    _, left = results(
        asking(clock.taking(waited_s)),
        asking(lambda: done.append("left"), is_gone=True),
        of=queue(clock),
    )
    assert isinstance(left, ClientDisconnect) is not is_done
    assert bool(done) is is_done


def test_a_client_that_still_waits_is_answered_however_long_it_waited():
    clock = Clock()
    slow = asking(clock.taking(2 * CHECK_AFTER_S))
    assert results(slow, asking(lambda: "found"), of=queue(clock))[1] == "found"


def test_others_have_turns_between_the_questions_of_a_batch():
    clock, order = Clock(), []

    def work(name):
        def done():
            clock.now += SLICE_S
            order.append(name)
            return name

        return done

    batch, single = results(
        lambda door: door.run(client(), one_by_one(work("a"), work("b"), work("c"))),
        asking(work("single")),
        of=queue(clock),
    )
    assert batch == ["a", "b", "c"]
    assert single == "single"
    assert order == ["a", "single", "b", "c"]


def test_a_batch_is_admitted_whole_or_not_at_all():
    clock = Clock()
    batch = [clock.taking(SLICE_S, place) for place in range(8)]
    found, refused = results(
        lambda door: door.run(client(), one_by_one(*batch)),
        lambda door: door.run(client(), one_by_one(*batch)),
        of=queue(clock, limit=4),
    )
    assert found == list(range(8))
    assert isinstance(refused, QueueFullError)


def test_a_batch_that_does_not_fit_leaves_room_for_who_does():
    clock = Clock()
    batch = [clock.taking(SLICE_S, place) for place in range(3)]
    first, second, single = results(
        lambda door: door.run(client(), one_by_one(*batch)),
        lambda door: door.run(client(), one_by_one(*batch)),
        asking(clock.taking(SLICE_S, "single")),
        of=queue(clock, limit=4),
    )
    assert first == [0, 1, 2]
    assert isinstance(second, QueueFullError)
    assert single == "single"


def test_the_loop_goes_round_between_two_turns():
    clock, order = Clock(), []

    async def answered():
        door = queue(clock)
        async with consumed(door):
            works = [run(door, clock.taking(SLICE_S)) for _ in range(3)]
            waiting = [asyncio.ensure_future(work) for work in works]
            while not all(one.done() for one in waiting):
                order.append(door.waiting)
                await asyncio.sleep(0)

    asyncio.run(answered())
    assert set(order) >= {3, 2, 1}


def test_waits_are_told():
    clock, waits = Clock(), []
    door = queue(clock, waited=waits.append)
    results(asking(clock.taking(0.5)), asking(clock.taking(0.5)), of=door)
    assert waits == [0.0, 0.5]


def test_a_request_that_was_cancelled_is_not_done():
    clock, done = Clock(), []

    async def answered():
        door = queue(clock)
        async with consumed(door):
            first = asyncio.ensure_future(run(door, clock.taking(SLICE_S)))
            second = asyncio.ensure_future(run(door, lambda: done.append(1)))
            await asyncio.sleep(0)
            second.cancel()
            await first
            await asyncio.sleep(0.01)
            assert (door.waiting, done) == (0, [])

    asyncio.run(answered())


def test_without_a_consumer_nobody_is_left_waiting():
    clock = Clock()

    async def answered():
        door = queue(clock)
        with pytest.raises(NoConsumerError):
            await run(door, lambda: None)
        async with consumed(door) as consumer:
            assert door.is_running
            waiting = asyncio.ensure_future(run(door, lambda: None))
            await asyncio.sleep(0)
            consumer.cancel()
            with pytest.raises(NoConsumerError):
                await waiting
            assert not door.is_running

    asyncio.run(answered())


def test_a_budget_holds_for_the_wait_and_not_for_the_work():
    clock = Clock()
    batch = [clock.taking(0.8, place) for place in range(3)]
    (found,) = results(lambda door: door.run(client(), one_by_one(*batch)), of=queue(clock))
    assert found == [0, 1, 2]


def test_what_a_dropped_request_held_is_let_go_at_once():
    class Bundle:
        def search(self):
            return "found"

    async def answered():
        clock, bundle = Clock(), Bundle()
        door = queue(clock, timeout_s=1.0)
        async with consumed(door):
            slow = asyncio.ensure_future(run(door, clock.taking(2.0)))
            await asyncio.sleep(0)
            with suppress(QueueTimeoutError):
                await run(door, bundle.search)
            held = weakref.ref(bundle)
            del bundle
            await slow
            await asyncio.sleep(0.01)  # the loop itself holds an error until it has gone round
            return held() is None

    gc.disable()
    try:
        assert asyncio.run(answered())
    finally:
        gc.enable()
