"""Around every request: its id, its duration, one line in the log, and the last safety net."""

import logging
import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.lifetime import Lifetime
from service.logs import fields, request_id
from service.metrics import Metrics
from service.problems import internal_problem

SAFE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
CLIENT_LEFT = 499  # nobody hears it; for log and metrics
LEFT_UNREAD = (408, 413)  # the rest of the body is not waited for

log = logging.getLogger("service")


class RequestObserver:
    """Wraps the app; plain ASGI, so that it costs next to nothing."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, lifetime: Lifetime, has_log: bool
    ) -> None:
        self._app = app
        self._has_log = has_log
        self._metrics = metrics
        self._lifetime = lifetime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and watch it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.perf_counter()
        current = id_of(scope)
        token = request_id.set(current)
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = current
                if self._lifetime.is_draining or status in LEFT_UNREAD:
                    headers["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except Exception:  # the net under everything: logged whole, told as a bare 500
            log.exception("request failed")
            if status:
                raise  # half an answer is out; only closing the connection tells the truth
            await internal_problem(scope["path"])(scope, receive, watched)
        finally:
            self._note(scope, status, time.perf_counter() - began)
            request_id.reset(token)
        return None

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


def id_of(scope: Scope) -> str:
    """Return the caller's X-Request-ID where it is safe to repeat, else a new one."""
    said = Headers(scope=scope).get("x-request-id", "")
    return said if SAFE_ID.fullmatch(said) else secrets.token_hex(16)


def route_of(scope: MutableMapping[str, Any]) -> str:
    """Return the template of the route that matched, or "unmatched"."""
    if "route" in scope:
        return str(scope["route"].path_format)
    # /docs and /openapi.json are plain routes: without parameters the path is the template
    return str(scope["path"]) if "endpoint" in scope else "unmatched"
