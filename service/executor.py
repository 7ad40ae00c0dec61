"""Bounded thread pools for work that would block the event loop."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.errors import BusyError

Result = TypeVar("Result")


class BoundedExecutor:
    """Thread pool that rejects jobs above a limit."""

    def __init__(self, name: str, num_threads: int, max_jobs: int) -> None:
        """Create the pool; `max_jobs` counts running and waiting jobs."""
        self._name = name
        self._max_jobs = max_jobs
        self._slots = threading.BoundedSemaphore(max_jobs)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix=name)

    async def run(self, job: Callable[[], Result]) -> Result:
        """Run a job in a thread and return its result.

        A cancelled caller leaves a running job, and its slot, occupied until the job ends.

        Raises:
            BusyError: the limit is reached.
        """
        if not self._slots.acquire(blocking=False):
            raise BusyError(
                f"{self._name}: {self._max_jobs} such requests are in progress, the limit; retry "
                "later"
            )
        try:
            future = self._pool.submit(job)
        except BaseException:
            self._slots.release()
            raise
        future.add_done_callback(lambda _: self._slots.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Accept no more jobs and drop waiting ones, without waiting for running ones."""
        self._pool.shutdown(wait=False, cancel_futures=True)
