"""Bounded thread pools, for work that would hold up the event loop."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.errors import BusyError

Result = TypeVar("Result")


class BoundedExecutor:
    """Does one kind of work in threads of its own."""

    def __init__(self, name: str, thread_count: int, most: int) -> None:
        """Take at most `most` at once, those that wait for a thread included."""
        self._name = name
        self._most = most
        self._places = threading.BoundedSemaphore(most)
        self._pool = ThreadPoolExecutor(thread_count, thread_name_prefix=name)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Return what the work returns.

        Raises BusyError instead of waiting in a queue without end. Whoever no longer waits
        leaves the work to its end, and its place taken until then.
        """
        if not self._places.acquire(blocking=False):
            raise BusyError(
                f"{self._name}: {self._most} such requests are being answered already; try "
                "again soon"
            )
        try:
            begun = self._pool.submit(work)
        except BaseException:
            self._places.release()
            raise
        begun.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(begun)

    def close(self) -> None:
        """Take no more work; what waits is dropped, what has begun is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
