"""Logs: one JSON object a line, on stdout."""

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
    """Writes time, level, event, the request's id where there is one, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a record."""
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
        return written(line)


def written(line: dict[str, Any]) -> str:
    """Write a line as JSON, whatever is in it."""
    try:
        return orjson.dumps(line, default=str).decode()
    except TypeError:  # an integer beyond 64 bits, or text that is no Unicode
        return json.dumps(line, default=str)


def fields(**values: object) -> dict[str, object]:
    """Hand fields to a log call: `log.info("listening", extra=fields(url=url))`."""
    return {"fields": values}


def configure_logging(level: str) -> None:
    """Send every logger of the process to stdout as JSON, from this level on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("asyncio", "faiss", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.root.level))
