"""ASGI middleware for all routes: request ids, access log and metrics; bounded bodies."""

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
CUT_OFF = 500  # the grace was over before the answer began
CLIENT_LEFT = 499  # nobody hears it; for log and metrics
LEFT_UNREAD = (408, 413)  # the rest of the body is not waited for

log = logging.getLogger("service")


class RequestObserver:
    """Wraps the app; plain ASGI, so that it costs next to nothing."""

    def __init__(self, app: ASGIApp, metrics: Metrics, lifetime: Lifetime, has_log: bool) -> None:
        self._app = app
        self._has_log = has_log
        self._metrics = metrics
        self._lifetime = lifetime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and watch it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.perf_counter()
        current, trace = ids_of(scope)
        request_id.set(current)  # each request has a task, and so a context, of its own
        trace_id.set(trace)
        self._metrics.inflight.inc()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self._headers(status, current)]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            status = CLIENT_LEFT
            self._metrics.count_rejection("client-gone")
        except Exception:  # the net under everything: logged whole, told as a bare 500
            log.exception("request failed")
            if status:
                raise  # half an answer is out; only closing the connection tells the truth
            await internal_problem(scope["path"])(scope, receive, watched)
        finally:
            self._metrics.inflight.dec()
            self._note(scope, status or CUT_OFF, time.perf_counter() - began)
        return None

    def _headers(self, status: int, current: str) -> list[tuple[bytes, bytes]]:
        added = [(b"x-request-id", current.encode())]
        if self._lifetime.is_draining or status in LEFT_UNREAD:
            added.append((b"connection", b"close"))
        return added

    def _note(self, scope: MutableMapping[str, Any], status: int, duration_s: float) -> None:
        method, route = scope["method"], route_of(scope)
        self._metrics.count_request(method, route, status, duration_s)
        if not self._has_log:
            return
        log.info(
            "request",
            extra=fields(
                method=method,
                route=route,
                status=status,
                duration_ms=round(duration_s * 1_000, 3),
            ),
        )


def ids_of(scope: Scope) -> tuple[str, str | None]:
    """Return the request's id and, where there is one, its trace's (W3C traceparent).

    The id is the caller's X-Request-ID where it is safe to repeat, else a new one.
    """
    current, trace = None, None
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SAFE_ID.fullmatch(value):
            current = value.decode()
        elif name == b"traceparent" and (told := TRACE_PARENT.fullmatch(value)):
            trace = told[1].decode()
    return current or secrets.token_hex(16), trace


def route_of(scope: MutableMapping[str, Any]) -> str:
    """Return the template of the route that matched, or "unmatched"; never a caller's text."""
    if "route" in scope:
        return str(scope["route"].path_format)
    if "endpoint" not in scope:
        return "unmatched"
    # below /docs-static anything may be asked for; where it is mounted is what we call it
    mounted = str(scope["root_path"]).removeprefix(scope.get("app_root_path", ""))
    # /docs and /openapi.json are plain routes: without parameters the path is the template
    return mounted or str(scope["path"])


class BodyLimit:
    """Delivers each body whole, as one message, at the first call of `receive`.

    That call raises BodyTooLargeError as soon as the size shows, and BodyTimeoutError. A route
    that reads no body is not affected.
    """

    def __init__(
        self, app: ASGIApp, size_bytes: int, timeout_s: float, size_by_path: Mapping[str, int]
    ) -> None:
        """Bound each body, and the time that it may take to arrive.

        Args:
            size_by_path: paths with a larger limit of their own.
        """
        self._app = app
        self._size_bytes = size_bytes
        self._timeout_s = timeout_s
        self._size_by_path = size_by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app with a bounded `receive`."""
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
        """Return the whole body as one message, or a disconnect."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        limit = self._size_by_path.get(path, self._size_bytes)
        if content_length(scope) > limit:  # before any of it is asked for
            raise _too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return message
                    body += message.get("body", b"")
                    if len(body) > limit:  # there may be no content-length: count
                        raise _too_large(limit)
                    if not message.get("more_body"):
                        return {"type": "http.request", "body": bytes(body)}
        except TimeoutError as error:
            raise BodyTimeoutError(
                f"the body did not come within {self._timeout_s:g} s; send it in one "
                "go, or let the operator raise ESANS_REQUEST_TIMEOUT_S"
            ) from error


def content_length(scope: Scope) -> int:
    """Return the declared size of the body; 0 without a declaration."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _too_large(limit_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"the body is larger than {limit_bytes} bytes; send shorter lists, or let the operator "
        "raise ESANS_BODY_LIMIT_BYTES"
    )
