"""Uvicorn server with connection limits, drain on SIGTERM, and the app's lifespan."""

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

from service.bundle_watcher import BundleWatcher
from service.cluster_watcher import ClusterWatcher
from service.executor import BoundedExecutor
from service.logging_config import fields
from service.request_queue import RequestQueue

MAX_HEAD_BYTES = 1 << 17  # proxies forward heads of at most 8 to 64 KiB
BACKLOG_TIMEOUT_S = 1.0  # time to accept and read what arrived before the port closes

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

log = logging.getLogger("service")


class Lifetime:
    """Shutdown state of the process.

    Attributes:
        is_draining: set by the first signal; /readyz then returns 503, and responses carry
            `Connection: close`.
    """

    def __init__(self) -> None:
        self.is_draining = False


class Connection(HttpToolsProtocol):
    """HTTP protocol with a size limit on request heads, which httptools lacks."""

    def __init__(self, *parts: Any, **more: Any) -> None:  # noqa: ANN401  # uvicorn's own
        super().__init__(*parts, **more)
        self._is_in_head = False
        self._head_bytes = 0

    def on_message_begin(self) -> None:
        """Start counting head bytes."""
        self._is_in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop counting: the body has its own limit."""
        self._is_in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Parse data; respond 400 if the head is too large."""
        super().data_received(data)
        if not self._is_in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self.send_400_response(
                f"The head of this request is larger than {MAX_HEAD_BYTES} bytes; "
                "send fewer or shorter headers."
            )


class ConnectionTimeouts:
    """Timeouts of connections whose client sends no complete head or reads no response.

    uvicorn enforces neither: a response that no client reads would stay in memory.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._awaiting_head: dict[Connection, float] = {}
        self._unread: dict[tuple[Connection, int], float] = {}

    def close_expired(self, connections: Collection[Connection], now: float) -> None:
        """Close the connections that have waited for their client longer than the timeout."""
        self._awaiting_head = {
            connection: self._awaiting_head.get(connection, now)
            for connection in connections
            if is_idle(connection) and connection.timeout_keep_alive_task is None
        }
        sizes = ((each, each.transport.get_write_buffer_size()) for each in connections)
        self._unread = {key: self._unread.get(key, now) for key in sizes if key[1]}
        for connection, since in self._awaiting_head.items():
            if now - since > self._timeout_s:
                connection.transport.close()
        for (connection, _), since in self._unread.items():
            if now - since > self._timeout_s:
                connection.transport.abort()


def is_idle(connection: HttpToolsProtocol) -> bool:
    """Return whether the connection has no request in progress."""
    return bool(
        getattr(connection.cycle, "response_complete", True)
    )  # None before the first request


def unread_bytes(connection: HttpToolsProtocol) -> int:
    """Return the bytes of a connection that wait in the kernel's receive buffer."""
    descriptor = connection.transport.get_extra_info("socket").fileno()
    if descriptor < 0:  # closed already
        return 0
    return int.from_bytes(ioctl(descriptor, FIONREAD, bytes(4)), sys.byteorder)


class DrainingServer(uvicorn.Server):
    """Server that keeps serving for a delay after the first signal; a second one ends it."""

    def __init__(
        self, config: uvicorn.Config, lifetime: Lifetime, delay_s: float, client_timeout_s: float
    ) -> None:
        """Prepare the server.

        Args:
            delay_s: from the first signal to closing the port, for load balancers to react.
            client_timeout_s: limit for sending a request head and for reading a response.
        """
        super().__init__(config)
        self._lifetime = lifetime
        self._delay_s = delay_s
        self._timeouts = ConnectionTimeouts(client_timeout_s)
        self._closes_at: float | None = None
        self._has_logged_draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start draining on the first signal, exit on the second."""
        if self._closes_at is None:
            self._lifetime.is_draining = True
            self._closes_at = time.monotonic() + self._delay_s
            return
        self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Check the deadlines; uvicorn calls this ten times per second."""
        now = time.monotonic()
        if self._closes_at is not None:
            self._log_draining()
            self.should_exit = self.should_exit or now >= self._closes_at
        if counter % 10 == 0:
            self._timeouts.close_expired(self._connections(), now)
        return await super().on_tick(counter)

    def _log_draining(self) -> None:
        """Log the drain once, outside of the signal handler, which may interrupt a log call."""
        if not self._has_logged_draining:
            log.info("draining", extra=fields(delay_s=self._delay_s))
        self._has_logged_draining = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, finish the requests that have arrived, and exit.

        uvicorn closes idle connections at once even if a request waits in their buffer, and the
        kernel resets connections that are not accepted yet, so both are processed first.
        """
        log.info("closing", extra=fields(connections=len(self.server_state.connections)))
        await run_loop_while(lambda: has_pending_connections(sockets or []))
        for server in self.servers:
            server.close()
        await run_loop_while(self._has_unread)
        await super().shutdown(sockets)

    def _connections(self) -> set[Connection]:
        return cast(set[Connection], self.server_state.connections)

    def _has_unread(self) -> bool:
        return any(is_idle(each) and unread_bytes(each) for each in self._connections())


async def run_loop_while(condition: Callable[[], bool]) -> None:
    """Run the event loop while a condition holds, for at most BACKLOG_TIMEOUT_S."""
    deadline = time.monotonic() + BACKLOG_TIMEOUT_S
    while condition() and time.monotonic() < deadline:  # noqa: ASYNC110  # there is no event
        await asyncio.sleep(0)


def has_pending_connections(listeners: list[socket.socket]) -> bool:
    """Return whether the kernel holds connections that are not accepted yet."""
    return bool(select.select(listeners, [], [], 0)[0])


def build_lifespan(
    live_bundle: BundleWatcher,
    live_clusters: ClusterWatcher,
    queue: RequestQueue,
    *executors: BoundedExecutor,
) -> Lifespan:
    """Return the lifespan that starts and stops watchers, queue consumer and executors."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live_bundle.start()
        consumer = asyncio.create_task(queue.consume(), name="consumer")
        try:
            with sighup_handler(live_bundle.request_poll):
                yield
        finally:
            consumer.cancel()
            await asyncio.to_thread(live_bundle.stop)
            await asyncio.to_thread(live_clusters.stop)
            for executor in executors:
                executor.close()

    return lifespan


@contextmanager
def sighup_handler(callback: Callable[[], None]) -> Iterator[None]:
    """Call back on SIGHUP within the context, if the event loop runs in the main thread.

    In another thread, such as in an app mounted in another one, the handler is not installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, callback)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
