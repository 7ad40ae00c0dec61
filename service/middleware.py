"""ASGI middleware for all routes: request ids, access log and metrics; body limits."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTimeoutError, BodyTooLargeError, internal_problem
from service.logging_config import fields, request_id, trace_id
from service.metrics import Metrics
from service.server import Lifetime

SAFE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
TRACE_PARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
NO_RESPONSE = 500  # cancelled at shutdown before the response started
CLIENT_CLOSED = 499  # recorded in log and metrics only
CLOSING_STATUSES = (408, 413)  # close the connection: the rest of the body stays unread

log = logging.getLogger("service")


class RequestObserver:
    """Assigns ids to requests, logs and counts them; plain ASGI, for low overhead."""

    def __init__(self, app: ASGIApp, metrics: Metrics, lifetime: Lifetime, has_log: bool) -> None:
        self._app = app
        self._has_log = has_log
        self._metrics = metrics
        self._lifetime = lifetime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app and record the request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start_s = time.perf_counter()
        current, trace = parse_ids(scope)
        request_id.set(current)  # each request runs in its own task and context
        trace_id.set(trace)
        self._metrics.inflight.inc()
        status = 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self._headers(status, current)]
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except ClientDisconnect:
            status = CLIENT_CLOSED
            self._metrics.count_rejection("client-gone")
        except Exception:  # last resort: log the traceback, respond with a plain 500
            log.exception("request failed")
            if status:
                raise  # the response has started: only closing the connection signals the error
            await internal_problem(scope["path"])(scope, receive, send_observed)
        finally:
            self._metrics.inflight.dec()
            self._record(scope, status or NO_RESPONSE, time.perf_counter() - start_s)
        return None

    def _headers(self, status: int, current: str) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", current.encode())]
        if self._lifetime.is_draining or status in CLOSING_STATUSES:
            headers.append((b"connection", b"close"))
        return headers

    def _record(self, scope: MutableMapping[str, Any], status: int, duration_s: float) -> None:
        method, route = scope["method"], get_route_template(scope)
        self._metrics.count_request(method, route, status, duration_s)
        if not self._has_log:
            return
        log.info(
            "request",
            extra=fields(
                method=method, route=route, status=status, duration_ms=round(duration_s * 1_000, 3)
            ),
        )


def parse_ids(scope: Scope) -> tuple[str, str | None]:
    """Return the request id and the trace id of a W3C traceparent header, if any.

    The request id is the client's X-Request-ID if it is safe to echo, else a new one.
    """
    current, trace = None, None
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SAFE_ID.fullmatch(value):
            current = value.decode()
        elif name == b"traceparent" and (match := TRACE_PARENT.fullmatch(value)):
            trace = match[1].decode()
    return current or secrets.token_hex(16), trace


def get_route_template(scope: MutableMapping[str, Any]) -> str:
    """Return the template of the matched route or "unmatched"; never text of the client."""
    if "route" in scope:
        return str(scope["route"].path_format)
    if "endpoint" not in scope:
        return "unmatched"
    # /docs-static is a mount: its mount path is the label of all paths below it
    mount_path = str(scope["root_path"]).removeprefix(scope.get("app_root_path", ""))
    # /docs and /openapi.json are plain routes without parameters: their path is the template
    return mount_path or str(scope["path"])


class BodyLimit:
    """Limits the size and the receive time of request bodies.

    The first call of `receive` returns the whole body as one message, or raises
    BodyTooLargeError (as soon as the size is known) or BodyTimeoutError. Routes that read no
    body are not affected.
    """

    def __init__(
        self, app: ASGIApp, size_bytes: int, timeout_s: float, size_by_path: Mapping[str, int]
    ) -> None:
        """Set the limits.

        Args:
            size_by_path: size limits of single paths, in place of `size_bytes`.
        """
        self._app = app
        self._size_bytes = size_bytes
        self._timeout_s = timeout_s
        self._size_by_path = size_by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app with a `receive` that enforces the limits."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        is_read = False

        async def receive_whole() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return await self._read(scope, receive)

        return await self._app(scope, receive_whole, send)

    async def _read(self, scope: Scope, receive: Receive) -> Message:
        """Return the whole body as one message, or the disconnect."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        limit = self._size_by_path.get(path, self._size_bytes)
        if content_length(scope) > limit:  # before 100-continue is sent
            raise _too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return message
                    body += message.get("body", b"")
                    if len(body) > limit:  # chunked bodies declare no length
                        raise _too_large(limit)
                    if not message.get("more_body"):
                        return {"type": "http.request", "body": bytes(body)}
        except TimeoutError as error:
            raise BodyTimeoutError(
                f"the body did not arrive within {self._timeout_s:g} s; send it faster, "
                "or have the operator raise ESANS_REQUEST_TIMEOUT_S"
            ) from error


def content_length(scope: Scope) -> int:
    """Return the Content-Length of a request; 0 if it has none."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _too_large(limit_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"the body is larger than {limit_bytes} bytes; send shorter lists, or have the operator "
        "raise ESANS_BODY_LIMIT_BYTES"
    )
