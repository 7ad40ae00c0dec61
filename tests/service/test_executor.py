import asyncio
import threading

import pytest

from service.errors import BusyError
from service.executor import BoundedExecutor


def ran(scenario, thread_count=1, most=2):
    side = BoundedExecutor("this", thread_count, most)
    try:
        return asyncio.run(scenario(side))
    finally:
        side.close()


def test_what_the_work_returns_or_raises_comes_back():
    async def scenario(side):
        with pytest.raises(ZeroDivisionError):
            await side.run(lambda: 1 // 0)
        return [await side.run(lambda: 7) for _ in range(5)]

    assert ran(scenario) == [7] * 5


def test_who_comes_when_every_place_is_taken_is_turned_down_at_once():
    async def scenario(side):
        release = threading.Event()
        begun = [asyncio.create_task(side.run(release.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match=r"this: 2 such requests .*try again soon"):
            await side.run(lambda: None)
        release.set()
        await asyncio.gather(*begun)
        return await side.run(lambda: "there is room again")

    assert ran(scenario) == "there is room again"


def test_work_that_nobody_waits_for_any_more_keeps_its_place_until_it_ends():
    async def scenario(side):
        release, ended = threading.Event(), threading.Event()

        def work():
            release.wait()
            ended.set()

        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await side.run(work)
        with pytest.raises(BusyError):
            await side.run(lambda: None)
        release.set()
        await asyncio.to_thread(ended.wait)
        while True:
            try:
                return await side.run(lambda: "at last")
            except BusyError:
                await asyncio.sleep(0.01)

    assert ran(scenario, thread_count=2) == "at last"
