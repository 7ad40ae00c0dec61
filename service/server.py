"""Uvicorn server with connection limits, drain on SIGTERM, and the app's lifespan."""

import asyncio
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from service.bundle_watcher import BundleWatcher
from service.cluster_watcher import ClusterWatcher
from service.connection import Connection, is_idle, unread_bytes
from service.executor import BoundedExecutor
from service.logging_config import fields
from service.request_queue import RequestQueue
from service.slow_clients import ClientLimits, SlowClients

EXIT_MARGIN_S = 5.0  # after the grace period, for threads of stores to end
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


class DrainingServer(uvicorn.Server):
    """Server that keeps serving for a delay after the first signal; a second one ends it."""

    def __init__(
        self, config: uvicorn.Config, lifetime: Lifetime, delay_s: float, limits: ClientLimits
    ) -> None:
        """Prepare the server.

        Args:
            delay_s: from the first signal to closing the port, for load balancers to react.
            limits: of slow clients.
        """
        super().__init__(config)
        self._lifetime = lifetime
        self._delay_s = delay_s
        self._slow_clients = SlowClients(limits)
        self._closes_at: float | None = None
        self._has_logged_draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start draining on the first signal, exit on the second."""
        if self._closes_at is None:
            self._lifetime.is_draining = True
            self._closes_at = time.monotonic() + self._delay_s
            grace_s = self.config.timeout_graceful_shutdown or 0
            exit_after(self._delay_s + grace_s + EXIT_MARGIN_S)
            return
        self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Check the deadlines; uvicorn calls this ten times per second."""
        now = time.monotonic()
        if self._closes_at is not None:
            self._log_draining()
            self.should_exit = self.should_exit or now >= self._closes_at
        if counter % 10 == 0:
            self._slow_clients.close(self._connections(), now)
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


def exit_after(delay_s: float) -> None:
    """End the process after a delay, whatever still runs: a store call may hang for ever."""

    def end() -> None:
        log.error("shutdown deadline", extra=fields(deadline_s=delay_s))
        logging.shutdown()
        os._exit(1)

    timer = threading.Timer(delay_s, end)
    timer.daemon = True
    timer.start()


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
    before = signal.getsignal(signal.SIGHUP)
    loop.add_signal_handler(signal.SIGHUP, callback)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, before)
