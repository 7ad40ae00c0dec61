"""Logging: one JSON object per line on stdout."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

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


def configure_logging(level: str) -> None:
    """Log to stdout as JSON, for all loggers of the process, from this level on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("asyncio", "faiss", "uvicorn.error"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.root.level))
