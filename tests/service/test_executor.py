import asyncio
import threading

import pytest

from service.errors import BusyError
from service.executor import BoundedExecutor


def run_scenario(scenario, num_threads=1, max_jobs=2):
    executor = BoundedExecutor("this", num_threads, max_jobs)
    try:
        return asyncio.run(scenario(executor))
    finally:
        executor.close()


def test_executor_returns_result_or_raises_error():
    async def scenario(executor):
        with pytest.raises(ZeroDivisionError):
            await executor.run(lambda: 1 // 0)
        return [await executor.run(lambda: 7) for _ in range(5)]

    assert run_scenario(scenario) == [7] * 5


def test_executor_when_full_raises_busy():
    async def scenario(executor):
        release = threading.Event()
        jobs = [asyncio.create_task(executor.run(release.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match=r"this: 2 such requests .*retry later"):
            await executor.run(lambda: None)
        release.set()
        await asyncio.gather(*jobs)
        return await executor.run(lambda: "there is room again")

    assert run_scenario(scenario) == "there is room again"


def test_executor_abandoned_job_keeps_slot_until_it_ends():
    async def scenario(executor):
        release, ended = threading.Event(), threading.Event()

        def job():
            release.wait()
            ended.set()

        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await executor.run(job)
        with pytest.raises(BusyError):
            await executor.run(lambda: None)
        release.set()
        await asyncio.to_thread(ended.wait)
        while True:
            try:
                return await executor.run(lambda: "at last")
            except BusyError:
                await asyncio.sleep(0.01)

    assert run_scenario(scenario, num_threads=2) == "at last"
