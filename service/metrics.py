"""What is counted and timed, in Prometheus' words. Labels never hold ids or unknown paths."""

import time
from collections.abc import Callable
from typing import TypeVar, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from index.retriever import Answer, Fallback

REQUEST_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
)  # fmt: skip
STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1)
COUNT_BUCKETS = (0, 1, 10, 50, 100, 200, 500, 1_000)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


Result = TypeVar("Result")


def timed(stage: Histogram, work: Callable[[], Result]) -> Result:
    """Return what the work returns, and observe how long it took."""
    with stage.time():
        return work()


class Metrics:
    """The metrics of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._define_requests()
        self._define_bundle()

    def _define_requests(self) -> None:
        self.requests = Histogram(
            "http_server_request_duration_seconds",
            "From the request's head to the end of the answer.",
            ["method", "route", "status"],
            buckets=REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "esans_stage_duration_seconds",
            "Parts of a request: queue = until its turn, find = from question to candidates, "
            "total = all of it.",
            ["stage"],
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self.fallbacks = Counter(
            "esans_fallback", "Answers with popular items.", ["reason"], registry=self.registry
        )
        for reason in get_args(Fallback):
            self.fallbacks.labels(reason)  # a count of 0 is worth telling
        self.returned = Histogram(
            "esans_candidates_returned",
            "Candidates per answer.",
            buckets=COUNT_BUCKETS,
            registry=self.registry,
        )
        self.short = Counter(
            "esans_short_results",
            "Answers with fewer candidates than asked: all that were eligible.",
            registry=self.registry,
        )

    def _define_bundle(self) -> None:
        self.info = Gauge(
            "esans_bundle_info",
            "The live bundle.",
            ["version", "index"],
            registry=self.registry,
        )
        self.age = Gauge(
            "esans_bundle_age_seconds",
            "Since the live bundle was made.",
            registry=self.registry,
        )
        self.load = Gauge(
            "esans_bundle_load_seconds",
            "How long the live bundle took to open.",
            registry=self.registry,
        )
        self.reloads = Counter(
            "esans_bundle_reloads",
            "Bundles opened (live) or turned down (refused).",
            ["result"],
            registry=self.registry,
        )
        for result in ("live", "refused"):
            self.reloads.labels(result)
        self.items = Gauge(
            "esans_index_items", "Items of the live bundle.", registry=self.registry
        )

    def count_answer(self, answer: Answer, asked_count: int) -> None:
        """Count one answer to a question for so many candidates."""
        found = len(answer.item_ids)
        self.returned.observe(found)
        if found < asked_count:
            self.short.inc()
        if answer.fallback:
            self.fallbacks.labels(answer.fallback).inc()

    def count_request(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one request; `route` is the template, or "unmatched"."""
        spoken = method if method in METHODS else "_OTHER"
        self.requests.labels(spoken, route, str(status)).observe(duration_s)

    def show_bundle(
        self, version: str, index: str, items: int, made_at_s: float, load_s: float
    ) -> None:
        """Show which bundle is live now, made and loaded when (unix time, seconds)."""
        self.info.clear()
        self.info.labels(version, index).set(1)
        self.items.set(items)
        self.load.set(load_s)
        self.age.set_function(lambda: time.time() - made_at_s)
        self.reloads.labels("live").inc()

    def written(self) -> bytes:
        """Return all of it as Prometheus' text."""
        return generate_latest(self.registry)
