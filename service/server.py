"""The server: uvicorn with bounds on connections, signals, draining, and the app's lifespan."""

import asyncio
import logging
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from fcntl import ioctl
from termios import FIONREAD
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.bundle_watcher import LiveBundle
from service.cluster_watcher import LiveClusters
from service.executor import BoundedExecutor
from service.logging_config import fields
from service.request_queue import RequestQueue

MOST_HEAD_BYTES = 1 << 17  # balancers and servers elsewhere send 8 to 64 KiB on at most
EMPTYING_S = 1.0  # how long what came before the port closed is read, at most

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

log = logging.getLogger("service")


class Lifetime:
    """Whether the process is about to end.

    is_draining  set by the first signal; /readyz and `Connection: close` send clients elsewhere
    """

    def __init__(self) -> None:
        self.is_draining = False


class Connection(HttpToolsProtocol):
    """One that bounds the head of a request; httptools would gather it without end."""

    def __init__(self, *parts: Any, **more: Any) -> None:  # noqa: ANN401  # uvicorn's own
        super().__init__(*parts, **more)
        self._is_in_head = False
        self._head_bytes = 0

    def on_message_begin(self) -> None:
        """Begin to count."""
        self._is_in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Count no more: a body has a bound of its own."""
        self._is_in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Read; refuse the request if its head is too large."""
        super().data_received(data)
        if not self._is_in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_HEAD_BYTES:
            self.send_400_response(
                f"The head of this request is larger than {MOST_HEAD_BYTES} bytes; "
                "send fewer or shorter headers."
            )


class Waits:
    """How long connections have waited for their clients; too long, and they are closed."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._headless: dict[Connection, float] = {}
        self._unread: dict[tuple[Connection, int], float] = {}

    def look(self, connections: Collection[Connection], now: float) -> None:
        """Close those that have sent no whole head, or have read nothing, for too long.

        uvicorn closes neither: an answer that nobody reads would stay in memory for ever.
        """
        self._headless = {
            one: self._headless.get(one, now)
            for one in connections
            if is_idle(one) and one.timeout_keep_alive_task is None
        }
        sizes = ((one, one.transport.get_write_buffer_size()) for one in connections)
        self._unread = {key: self._unread.get(key, now) for key in sizes if key[1]}
        for one, since in self._headless.items():
            if now - since > self._limit_s:
                one.transport.close()
        for (one, _), since in self._unread.items():
            if now - since > self._limit_s:
                one.transport.abort()


def is_idle(connection: HttpToolsProtocol) -> bool:
    """Say whether no request of this connection is being answered."""
    return bool(getattr(connection.cycle, "response_complete", True))  # None before the first


def unread_bytes(connection: HttpToolsProtocol) -> int:
    """Return how many bytes of a connection lie in the kernel."""
    descriptor = connection.transport.get_extra_info("socket").fileno()
    if descriptor < 0:  # closed already
        return 0
    return int.from_bytes(ioctl(descriptor, FIONREAD, bytes(4)), sys.byteorder)


class DrainingServer(uvicorn.Server):
    """Serves on for a while after the first signal; the second one ends it at once.

    delay_s    from the first signal to closing the port, for balancers to look elsewhere
    request_s  within which a connection must have sent a head, and have read of its answer
    """

    def __init__(
        self, config: uvicorn.Config, lifetime: Lifetime, delay_s: float, request_s: float
    ) -> None:
        super().__init__(config)
        self._lifetime = lifetime
        self._delay_s = delay_s
        self._waits = Waits(request_s)
        self._closes_at: float | None = None
        self._has_told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end, or end now; called between two steps of the loop."""
        if self._closes_at is None:
            self._lifetime.is_draining = True
            self._closes_at = time.monotonic() + self._delay_s
            return
        self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Look at the clock; uvicorn calls it ten times a second."""
        now = time.monotonic()
        if self._closes_at is not None:
            self._tell_of_draining()
            self.should_exit = self.should_exit or now >= self._closes_at
        if counter % 10 == 0:
            self._waits.look(self._connections(), now)
        return await super().on_tick(counter)

    def _tell_of_draining(self) -> None:
        """Log it here: in the middle of a signal, a line may be half written."""
        if not self._has_told:
            log.info("draining", extra=fields(delay_s=self._delay_s))
        self._has_told = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, answer what has come, end.

        uvicorn closes idle connections at once, though a request may lie there unread, and the
        kernel resets those that nobody has accepted yet. So both are emptied first.
        """
        log.info("closing", extra=fields(connections=len(self.server_state.connections)))
        await turn_while(lambda: has_callers(sockets or []))
        for server in self.servers:
            server.close()
        await turn_while(self._has_unread)
        await super().shutdown(sockets)

    def _connections(self) -> set[Connection]:
        return cast(set[Connection], self.server_state.connections)

    def _has_unread(self) -> bool:
        return any(is_idle(one) and unread_bytes(one) for one in self._connections())


async def turn_while(is_so: Callable[[], bool]) -> None:
    """Let the loop go round while something is so, but not for ever."""
    patience = time.monotonic() + EMPTYING_S
    while is_so() and time.monotonic() < patience:  # noqa: ASYNC110  # there is no event
        await asyncio.sleep(0)


def has_callers(listeners: list[socket.socket]) -> bool:
    """Say whether the kernel holds connections that have not been accepted."""
    return bool(select.select(listeners, [], [], 0)[0])


def lifespan_of(
    live_bundle: LiveBundle,
    live_clusters: LiveClusters,
    queue: RequestQueue,
    *executors: BoundedExecutor,
) -> Lifespan:
    """Return what begins and ends the work in the background."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live_bundle.start()
        consumer = asyncio.create_task(queue.consume(), name="consumer")
        try:
            with on_hangup(live_bundle.request_poll):
                yield
        finally:
            consumer.cancel()
            await asyncio.to_thread(live_bundle.stop)
            await asyncio.to_thread(live_clusters.stop)
            for executor in executors:
                executor.close()

    return lifespan


@contextmanager
def on_hangup(act: Callable[[], None]) -> Iterator[None]:
    """Act on each SIGHUP meanwhile; only where the running loop is the main thread's.

    Elsewhere, as where an app is mounted in another, signals are somebody else's.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, act)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
