"""HTTP connection: bounds on heads, trailers and pipelined requests, and no protocol upgrades."""

import asyncio
import sys
from collections.abc import Iterator
from fcntl import ioctl
from termios import FIONREAD
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_HEAD_BYTES = 1 << 17  # proxies forward heads of at most 8 to 64 KiB
MAX_OUTSTANDING = 32  # requests of a connection, running or waiting
PIECE_BYTES = 2_048  # parsed at once: most requests, and a small excess of pipelined ones
PIPELINED_PIECE_BYTES = 512
MAX_PARSED_BYTES = 1 << 14  # before other connections have their turn


class ReadControl(FlowControl):
    """Flow control that resumes reading only while nothing that was read waits to be parsed."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._is_held = False

    def hold_reading(self) -> None:
        """Pause reading until it is released."""
        self._is_held = True
        self.pause_reading()

    def release_reading(self) -> None:
        """Resume reading if it was held."""
        if self._is_held:
            self._is_held = False
            self.resume_reading()

    def resume_reading(self) -> None:
        """Resume reading unless it is held."""
        if not self._is_held:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """HTTP protocol with the bounds that httptools and uvicorn lack."""

    def __init__(self, *parts: Any, **more: Any) -> None:  # noqa: ANN401  # uvicorn's own
        super().__init__(*parts, **more)
        self._is_in_head = False
        self._is_upgrade = False
        self._framing_bytes = 0  # received since the last byte of a body or end of a request
        self._running: RequestResponseCycle | None = None
        self._unparsed = memoryview(b"")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Prepare the connection."""
        super().connection_made(transport)
        self.flow: ReadControl = ReadControl(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End all requests of the connection."""
        self._disconnect()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data up to the limit of outstanding requests; keep the rest for later."""
        self._unparsed = memoryview(bytes(self._unparsed) + data if self._unparsed else data)
        self._parse()

    def on_message_begin(self) -> None:
        """Start counting head bytes."""
        self._is_in_head, self._framing_bytes = True, 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; trailers are ignored."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is parsed again without the upgrade."""
        self._is_upgrade = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self._is_upgrade:
            super().on_headers_complete()
        self._is_in_head = False  # after an invalid URL has raised

    def on_body(self, body: bytes) -> None:
        """Add bytes to the body, which has its own limit."""
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Complete the request."""
        self._framing_bytes = 0
        if not self._is_upgrade:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the next request of the pipeline and parse what waits."""
        super().on_response_complete()
        if self._unparsed:
            self.loop.call_soon(self._parse)

    def send_400_response(self, msg: str) -> None:
        """Respond 400 if the malformed request is the next to get a response, then close."""
        outstanding = list(self.outstanding())
        is_next = not outstanding if self._is_in_head else outstanding == [self.cycle]
        if is_next and (self._is_in_head or not self.cycle.response_started):
            super().send_400_response(msg)
        self.transport.close()
        self._disconnect()

    def abort(self) -> None:
        """Close the connection without sending what waits, and end its requests."""
        self.transport.abort()
        self._disconnect()

    def outstanding(self) -> Iterator[RequestResponseCycle]:
        """Yield the requests without a complete response: the running one, then those waiting."""
        if self._running and not self._running.response_complete:
            yield self._running
        yield from (cycle for cycle, _ in reversed(self.pipeline))

    def _parse(self) -> None:
        """Parse piece by piece, up to the limit of outstanding requests or of one go."""
        end = len(self._unparsed) - MAX_PARSED_BYTES
        while self._unparsed and not self.transport.is_closing():
            if len(self.pipeline) >= MAX_OUTSTANDING - 1:
                self.flow.hold_reading()
                return
            if len(self._unparsed) <= end:  # others first: tiny chunks cost a microsecond a byte
                self.flow.hold_reading()
                self.loop.call_soon(self._parse)
                return
            size = PIPELINED_PIECE_BYTES if self.pipeline else PIECE_BYTES
            piece, self._unparsed = self._unparsed[:size], self._unparsed[size:]
            self._feed(piece)
        self.flow.release_reading()

    def _feed(self, piece: memoryview) -> None:
        """Parse a piece; respond 400 if the request is malformed or its framing too long."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_without_upgrade(piece[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        self._framing_bytes += len(piece)
        if self._framing_bytes > MAX_HEAD_BYTES:
            self.send_400_response(
                f"The head or the trailers of this request are larger than {MAX_HEAD_BYTES} "
                "bytes; send fewer or shorter headers."
            )

    def _parse_without_upgrade(self, rest: memoryview) -> None:
        """Parse a request again without its offer to upgrade; llhttp would skip its body."""
        if not self._is_upgrade:  # CONNECT: what follows is not HTTP
            self.transport.close()
            return
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0] != b"upgrade"]
        head = b"\r\n".join([*lines, b"\r\n"])
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._unparsed = memoryview(head + bytes(rest) + bytes(self._unparsed))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _disconnect(self) -> None:
        """End all requests; uvicorn ends only the newest."""
        for cycle in self.outstanding():
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        self._unparsed = memoryview(b"")


def is_idle(connection: Connection) -> bool:
    """Return whether the connection has no request in progress."""
    return next(connection.outstanding(), None) is None


def unread_bytes(connection: Connection) -> int:
    """Return the bytes of a connection that wait in the kernel's receive buffer."""
    descriptor = connection.transport.get_extra_info("socket").fileno()
    if descriptor < 0:  # closed already
        return 0
    return int.from_bytes(ioctl(descriptor, FIONREAD, bytes(4)), sys.byteorder)
