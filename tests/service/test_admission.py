import asyncio
import gc
import weakref
from contextlib import asynccontextmanager, suppress

import pytest
from starlette.requests import ClientDisconnect, Request

from service.admission import (
    ASK_AFTER_S,
    TURN_S,
    Admission,
    NoConsumerError,
    OutOfTimeError,
    QueueFullError,
)


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
async def consumed(admission):
    task = asyncio.create_task(admission.consume())
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def admission(clock=None, limit=4, budget_s=1.0, **more):
    return Admission(limit, budget_s, now=clock or Clock(), **more)


def results(*requests, of=None):
    """What each of several requests is answered, or why not; all come at once."""
    door = of or admission()

    async def answered():
        async with consumed(door):
            waiting = [asyncio.create_task(request(door)) for request in requests]
            return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(answered())


def asking(work, is_gone=False):
    return lambda door: door.run(client(is_gone), work)


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
    works = [asking(clock.taking(TURN_S, place)) for place in range(6)]
    *found, fifth, sixth = results(*works, of=admission(clock, limit=4))
    assert found == [0, 1, 2, 3]
    assert isinstance(fifth, QueueFullError)
    assert str(sixth).startswith("4 questions wait for their turn, of at most 4; ask again")


def test_what_was_found_along_with_another_is_told_in_the_same_turn():
    clock, turns = Clock(), []

    def work(is_found):
        def tell():
            clock.now += 0 if is_found else TURN_S
            turns.append(is_found)

        return lambda door: door.run(client(False), tell, lambda: is_found)

    async def answered():
        door = admission(clock)
        async with consumed(door):
            asked = [work(found) for found in (False, True, True, False)]
            tasks = [asyncio.create_task(one(door)) for one in asked]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            told = list(turns)  # what one turn has done
            await asyncio.gather(*tasks)
            return told

    assert asyncio.run(answered()) == [False, True, True]
    assert turns == [False, True, True, False]


def test_those_who_ask_again_at_once_come_to_be_answered_together():
    companies = []

    async def answered():
        door, waiting = admission(limit=64), []

        def tell():
            if waiting:
                companies.append(len(waiting))
                waiting.clear()

        async def caller(late):
            for _ in range(late):
                await asyncio.sleep(0)
            for _ in range(8):
                waiting.append(1)
                await door.run(client(False), tell, lambda: not waiting)
                await asyncio.sleep(0)  # the answer goes out, the next question comes in

        async with consumed(door):
            await asyncio.gather(*(caller(late=place % 2) for place in range(8)))

    asyncio.run(answered())
    assert companies[:2] == [4, 8]  # those who came while four were answered, and these four


def test_a_refused_request_leaves_no_trace_in_the_count():
    door = admission(limit=1)
    results(*[asking(lambda: None)] * 3, of=door)
    assert door.waiting == 0


def test_what_waited_longer_than_the_budget_is_refused_and_not_done():
    clock, done = Clock(), []
    slow, late = results(
        asking(clock.taking(2.0, "slow")),
        asking(lambda: done.append("late")),
        of=admission(clock, budget_s=1.0),
    )
    assert slow == "slow"
    assert isinstance(late, OutOfTimeError)
    assert str(late).startswith("the turn came after 2000 ms, of at most 1000 ms; ask again")
    assert done == []


@pytest.mark.parametrize(("waited_s", "is_done"), [(2 * ASK_AFTER_S, False), (0, True)])
def test_what_a_client_left_is_dropped_if_it_waited_for_a_while(waited_s, is_done):
    clock, done = Clock(), []
    _, left = results(
        asking(clock.taking(waited_s)),
        asking(lambda: done.append("left"), is_gone=True),
        of=admission(clock),
    )
    assert isinstance(left, ClientDisconnect) is not is_done
    assert bool(done) is is_done


def test_a_client_that_still_waits_is_answered_however_long_it_waited():
    clock = Clock()
    slow = asking(clock.taking(2 * ASK_AFTER_S))
    assert results(slow, asking(lambda: "found"), of=admission(clock))[1] == "found"


def test_others_have_turns_between_the_questions_of_a_batch():
    clock, order = Clock(), []

    def work(name):
        def done():
            clock.now += TURN_S
            order.append(name)
            return name

        return done

    batch, single = results(
        lambda door: door.run_all(client(), [work("a"), work("b"), work("c")]),
        asking(work("single")),
        of=admission(clock),
    )
    assert batch == ["a", "b", "c"]
    assert single == "single"
    assert order == ["a", "single", "b", "c"]


def test_a_batch_is_admitted_whole_or_not_at_all():
    clock = Clock()
    batch = [clock.taking(TURN_S, place) for place in range(8)]
    found, refused = results(
        lambda door: door.run_all(client(), batch),
        lambda door: door.run_all(client(), batch),
        of=admission(clock, limit=4),
    )
    assert found == list(range(8))
    assert isinstance(refused, QueueFullError)


def test_a_batch_that_does_not_fit_leaves_room_for_who_does():
    clock = Clock()
    batch = [clock.taking(TURN_S, place) for place in range(3)]
    first, second, single = results(
        lambda door: door.run_all(client(), batch),
        lambda door: door.run_all(client(), batch),
        asking(clock.taking(TURN_S, "single")),
        of=admission(clock, limit=4),
    )
    assert first == [0, 1, 2]
    assert isinstance(second, QueueFullError)
    assert single == "single"


def test_the_loop_goes_round_between_two_turns():
    clock, order = Clock(), []

    async def answered():
        door = admission(clock)
        async with consumed(door):
            works = [door.run(client(), clock.taking(TURN_S)) for _ in range(3)]
            waiting = [asyncio.ensure_future(work) for work in works]
            while not all(one.done() for one in waiting):
                order.append(door.waiting)
                await asyncio.sleep(0)

    asyncio.run(answered())
    assert set(order) >= {3, 2, 1}


def test_waits_are_told():
    clock, waits = Clock(), []
    door = admission(clock, waited=waits.append)
    results(asking(clock.taking(0.5)), asking(clock.taking(0.5)), of=door)
    assert waits == [0.0, 0.5]


def test_a_request_that_was_cancelled_is_not_done():
    clock, done = Clock(), []

    async def answered():
        door = admission(clock)
        async with consumed(door):
            first = asyncio.ensure_future(door.run(client(), clock.taking(TURN_S)))
            second = asyncio.ensure_future(door.run(client(), lambda: done.append(1)))
            await asyncio.sleep(0)
            second.cancel()
            await first
            await asyncio.sleep(0.01)
            assert (door.waiting, done) == (0, [])

    asyncio.run(answered())


def test_without_a_consumer_nobody_is_left_waiting():
    clock = Clock()

    async def answered():
        door = admission(clock)
        with pytest.raises(NoConsumerError):
            await door.run(client(), lambda: None)
        async with consumed(door) as consumer:
            assert door.is_running
            waiting = asyncio.ensure_future(door.run(client(), lambda: None))
            await asyncio.sleep(0)
            consumer.cancel()
            with pytest.raises(NoConsumerError):
                await waiting
            assert not door.is_running

    asyncio.run(answered())


def test_a_budget_holds_for_the_wait_and_not_for_the_work():
    clock = Clock()
    batch = [clock.taking(0.8, place) for place in range(3)]
    (found,) = results(lambda door: door.run_all(client(), batch), of=admission(clock))
    assert found == [0, 1, 2]


def test_what_a_dropped_request_held_is_let_go_at_once():
    class Bundle:
        def search(self):
            return "found"

    async def answered():
        clock, bundle = Clock(), Bundle()
        door = admission(clock, budget_s=1.0)
        async with consumed(door):
            slow = asyncio.ensure_future(door.run(client(), clock.taking(2.0)))
            await asyncio.sleep(0)
            with suppress(OutOfTimeError):
                await door.run(client(), bundle.search)
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
