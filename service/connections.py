"""Connections: what a client may send as a head, and how long it may keep one waiting."""

import sys
from collections.abc import Collection
from fcntl import ioctl
from termios import FIONREAD
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 1 << 17  # balancers and servers elsewhere send 8 to 64 KiB on at most


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
