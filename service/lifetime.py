"""How the process ends: unready first, then no new connections, then the last answers."""

import asyncio
import logging
import select
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import cast

import uvicorn

from service.connections import Connection, Waits, is_idle, unread_bytes
from service.logs import fields

EMPTYING_S = 1.0  # how long what came before the port closed is read, at most

log = logging.getLogger("service")


class Lifetime:
    """Whether the process is about to end.

    is_draining  set by the first signal; /readyz and `Connection: close` send clients elsewhere
    """

    def __init__(self) -> None:
        self.is_draining = False


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
