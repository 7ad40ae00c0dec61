"""Logging: one JSON object per line on stdout.

A thread writes the lines: a full pipe must not stop the event loop. Lines beyond the buffer are
dropped and counted.
"""

import json
import logging
import os
import sys
import threading
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

BUFFER_BYTES = 1 << 23  # about 40,000 lines
WRITE_INTERVAL_S = 0.05  # a write for each line would cost more than the line
FLUSH_TIMEOUT_S = 1.0

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)


class JsonFormatter(logging.Formatter):
    """Renders time, level, event, request and trace id if any, and the fields of a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the log line of a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        if (current := request_id.get()) is not None:
            line["request_id"] = current
        if (current := trace_id.get()) is not None:
            line["trace_id"] = current
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return render_line(line)


def render_line(line: dict[str, Any]) -> str:
    """Render a line as JSON, with values that JSON lacks as text."""
    try:
        return orjson.dumps(line, default=str).decode()
    except TypeError:  # an integer beyond 64 bits or invalid Unicode
        return json.dumps(line, default=str)


def fields(**values: object) -> dict[str, object]:
    """Return the `extra` of a log call: `log.info("listening", extra=fields(url=url))`."""
    return {"fields": values}


class LineWriter(logging.Handler):
    """Handler that buffers lines, which a thread writes to a file descriptor every 50 ms.

    Attributes:
        num_dropped: lines that found the buffer full or the reader gone.
    """

    def __init__(self, descriptor: int, limit_bytes: int = BUFFER_BYTES) -> None:
        super().__init__()
        self.num_dropped = 0
        self._descriptor = descriptor
        self._limit_bytes = limit_bytes
        self._lines: list[bytes] = []
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._has_lines = threading.Event()
        self._is_idle = threading.Event()
        self._is_idle.set()
        threading.Thread(target=self._write_forever, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Add the line of a record; never waits."""
        line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        with self._lock:
            if self._num_bytes + len(line) > self._limit_bytes:
                self.num_dropped += 1
                return
            self._lines.append(line)
            self._num_bytes += len(line)
            self._is_idle.clear()
        self._has_lines.set()

    def flush(self) -> None:
        """Wait until all lines are written, for a limited time; logging calls this at exit."""
        self._is_idle.wait(FLUSH_TIMEOUT_S)

    def _write_forever(self) -> None:
        while True:
            self._has_lines.wait()
            self._has_lines.clear()
            with self._lock:
                lines, self._lines, self._num_bytes = self._lines, [], 0
            try:
                write_all(self._descriptor, b"".join(lines))
            except OSError:  # the reader is gone
                self.num_dropped += len(lines)
            with self._lock:
                if not self._lines:
                    self._is_idle.set()
            time.sleep(WRITE_INTERVAL_S)


def write_all(descriptor: int, text: bytes) -> None:
    """Write all bytes, also to a descriptor that does not block."""
    rest = memoryview(text)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            time.sleep(WRITE_INTERVAL_S)


def count_dropped_lines() -> int:
    """Return the number of log lines that this process has dropped."""
    writers = [each for each in logging.root.handlers if isinstance(each, LineWriter)]
    return sum(writer.num_dropped for writer in writers)


def configure_logging(level: str) -> None:
    """Log to stdout as JSON, for all loggers of the process, from this level on."""
    handler = LineWriter(sys.stdout.fileno())
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("asyncio", "faiss", "uvicorn.error"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.root.level))
