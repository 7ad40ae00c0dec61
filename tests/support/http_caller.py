"""Asks an app over HTTP without a socket, with its lifespan running beside the test."""

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


def until(told, limit_s=10):
    """Wait until a function returns something true; return that."""
    deadline = time.monotonic() + limit_s
    while not (answer := told()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(POLL_S / 4)
    return answer


class Caller:
    """A client for tests that are not asynchronous themselves."""

    def __init__(self, portal, app):
        self.app = app
        self._portal = portal
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://esans"
        )

    def ask(self, method, path, **options):
        return self._portal.call(partial(self._client.request, method, path, **options))

    def run(self, function, *arguments):
        """Call a function in the thread of the app."""
        return self._portal.call(function, *arguments)

    def leave_midway(self, path):
        """Begin to send a body, then hang up; return what was answered to nobody."""
        answered = []
        scope = {"type": "http", "method": "POST", "path": path}
        scope |= {"query_string": b"", "headers": []}

        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            answered.append(message)

        self._portal.call(self.app, scope, receive, send)
        return answered

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def retrieve(self, **question):
        return self.ask("POST", "/retrieve", json=question)

    def found(self, **question):
        """The ids of a question's candidates."""
        return [one["item_id"] for one in self.retrieve(**question).json()["candidates"]]

    def metric(self, line):
        """The value of the metric that is written so, or None."""
        for one in self.get("/metrics").text.splitlines():
            if one.startswith(f"{line} "):
                return float(one.rsplit(" ", 1)[1])
        return None

    def wait_for(self, status, bundle=None, reason=""):
        """Wait until /readyz says so, with this reason or without any; return what it says."""

        def told_so():
            told = self.get("/readyz").json()
            reasons = " ".join(told.get("reasons", []))
            is_said = reason in reasons if reason else status != "ready" or not reasons
            fits = told["status"] == status and bundle in (None, told.get("bundle"))
            return told if fits and is_said else None

        return until(told_so)

    def wait_for_clusters(self, status, version=None, reason="", limit_s=30):
        """Wait until /readyz says so of the cluster map; return what it says."""

        def told_so():
            told = self.get("/readyz").json().get("clusters", {})
            reasons = " ".join(told.get("reasons", []))
            fits = told.get("status") == status and version in (None, told.get("version"))
            is_asked = "not asked yet" not in reasons
            return told if fits and is_asked and reason in reasons else None

        return until(told_so, limit_s)

    def negatives(self, **question):
        return self.ask("POST", "/negatives", json=question)


@contextmanager
def running(bundles, **settings):
    chosen = Settings(**{"bundles": bundles, "poll_interval_s": POLL_S, **settings})
    app = create_app(chosen, Lifetime())
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
    ):
        yield Caller(portal, app)


@contextmanager
def logged_lines(formatter, name="service"):
    """The lines that a logger is given meanwhile, as objects."""
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
