"""In-process HTTP client of an app whose lifespan runs in another thread."""

import json
import logging
import time
from contextlib import contextmanager
from functools import partial

import httpx
from anyio.from_thread import start_blocking_portal

from service.app import create_app
from service.server import Lifetime
from service.settings import Settings

POLL_S = 0.02


def until(condition, limit_s=10):
    """Poll a function until its result is true; return the result."""
    deadline = time.monotonic() + limit_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(POLL_S / 4)
    return result


class Caller:
    """Synchronous HTTP client of an app."""

    def __init__(self, portal, app):
        self.app = app
        self._portal = portal
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://esans"
        )

    def request(self, method, path, **options):
        return self._portal.call(partial(self._client.request, method, path, **options))

    def run(self, function, *arguments):
        """Call a function in the thread of the app."""
        return self._portal.call(function, *arguments)

    def start(self, function, *arguments):
        """Start a coroutine function in the thread of the app; return its future."""
        return self._portal.start_task_soon(function, *arguments)

    def disconnect_mid_body(self, path):
        """Disconnect while sending a body; return the messages that the app sent."""
        messages = []
        scope = {"type": "http", "method": "POST", "path": path}
        scope |= {"query_string": b"", "headers": []}

        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            messages.append(message)

        self._portal.call(self.app, scope, receive, send)
        return messages

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def retrieve(self, **query):
        return self.request("POST", "/retrieve", json=query)

    def retrieve_ids(self, **query):
        """Return the item ids of the candidates."""
        return [candidate["item_id"] for candidate in self.retrieve(**query).json()["candidates"]]

    def metric(self, name):
        """Return the value of a metric, named with its labels, or None."""
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rsplit(" ", 1)[1])
        return None

    def wait_for(self, status, bundle=None, reason=""):
        """Wait until /readyz reports a status, with this reason or none; return its body."""

        def matching_body():
            body = self.get("/readyz").json()
            reasons = " ".join(body.get("reasons", []))
            has_reason = reason in reasons if reason else status != "ready" or not reasons
            matches = body["status"] == status and bundle in (None, body.get("bundle"))
            return body if matches and has_reason else None

        return until(matching_body)

    def wait_for_clusters(self, status, version=None, reason="", limit_s=30):
        """Wait until /readyz reports a status of the cluster map; return that part of its body."""

        def matching_body():
            body = self.get("/readyz").json().get("clusters", {})
            reasons = " ".join(body.get("reasons", []))
            matches = body.get("status") == status and version in (None, body.get("version"))
            is_polled = "not asked yet" not in reasons
            return body if matches and is_polled and reason in reasons else None

        return until(matching_body, limit_s)

    def negatives(self, **query):
        return self.request("POST", "/negatives", json=query)


@contextmanager
def running(bundles, **settings):
    """Run an app in another thread; yield its caller.

    No query is dropped for waiting long, because a busy machine may stop the tests for seconds.
    """
    defaults = {"bundles": bundles, "poll_interval_s": POLL_S, "queue_timeout_ms": 60_000}
    app = create_app(Settings(**{**defaults, **settings}), Lifetime())
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
    ):
        yield Caller(portal, app)


@contextmanager
def logged_lines(formatter, name="service"):
    """Collect the lines of a logger as objects."""
    lines = []

    class Collector(logging.Handler):
        def emit(self, record):
            lines.append(json.loads(formatter.format(record)))

    logger, collector = logging.getLogger(name), Collector()
    before = logger.level
    logger.addHandler(collector)
    logger.setLevel("INFO")
    try:
        yield lines
    finally:
        logger.removeHandler(collector)
        logger.setLevel(before)
