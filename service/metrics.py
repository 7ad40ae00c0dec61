"""What is counted and timed, in Prometheus' words. Labels never hold ids or unknown paths."""

import time
from datetime import UTC, datetime
from functools import partial
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from index.bundle.manifest import Manifest
from index.search.query import Fallback, SearchResult

REQUEST_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
)  # fmt: skip
STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1)
COUNT_BUCKETS = (0, 1, 10, 50, 100, 200, 500, 1_000)
INDEX_FILE = "items.faiss"
STAGES = ("queue", "encode", "search", "write", "total")
REJECTIONS = (
    *("queue-full", "queue-timeout", "busy", "stopped", "no-bundle"),
    *("body-too-large", "body-timeout", "client-gone"),
)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Metrics:
    """The metrics of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._define_requests()
        self._define_load()
        self._define_results()
        self._define_bundle()

    def _define_requests(self) -> None:
        histogram = partial(Histogram, registry=self.registry)
        self.requests = histogram(
            "http_server_request_duration_seconds",
            "From the request's head to the end of the answer.",
            ["method", "route", "status"],
            buckets=REQUEST_BUCKETS,
        )
        stages = histogram(
            "esans_stage_duration_seconds",
            "Parts of a request: queue until its turn, encode from ids to a query, search from "
            "the query to candidates, write as JSON, total from reading the body on.",
            ["stage"],
            buckets=STAGE_BUCKETS,
        )
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self.queue_s, self.total_s = self._stages["queue"], self._stages["total"]

    def _define_load(self) -> None:
        gauge = partial(Gauge, registry=self.registry)
        self.ready = gauge("esans_ready", "Whether /readyz says that it is.")
        self.inflight = gauge("esans_inflight_requests", "Requests begun and not answered.")
        self.queued = gauge("esans_queued_queries", "Questions admitted whose turn has not come.")
        rejected = Counter(
            "esans_rejected",
            "Requests turned away, cut off or left by their client.",
            ["reason"],
            registry=self.registry,
        )
        self.rejected = {reason: rejected.labels(reason) for reason in REJECTIONS}

    def _define_results(self) -> None:
        counter = partial(Counter, registry=self.registry)
        self.fallbacks = counter("esans_fallback", "Answers with popular items.", ["reason"])
        self.short = counter(
            "esans_short_results",
            "Answers with fewer candidates than asked: all that passed the filter, or all that "
            "were eligible.",
            ["reason"],
        )
        for reason in get_args(Fallback):
            self.fallbacks.labels(reason)  # a count of 0 is worth showing
        for reason in ("filter", "eligible"):
            self.short.labels(reason)
        self.returned = Histogram(
            "esans_candidates_returned",
            "Candidates per answer.",
            buckets=COUNT_BUCKETS,
            registry=self.registry,
        )

    def _define_bundle(self) -> None:
        gauge = partial(Gauge, registry=self.registry)
        self.info = gauge("esans_bundle_info", "The live bundle.", ["version", "index"])
        self.age = gauge("esans_bundle_age_seconds", "Since the live bundle was made.")
        self.load = gauge("esans_bundle_load_seconds", "How long the live bundle took to open.")
        self.items = gauge("esans_index_items", "Items of the live bundle.")
        self.index_bytes = gauge("esans_index_bytes", "Size of its index's file.")
        self.recall = gauge(
            "esans_index_recall_at_k",
            "What its index finds of the exact best k, measured when it was built.",
            ["k"],
        )
        self.reloads = Counter(
            "esans_bundle_reloads",
            "Bundles opened (live) or turned down (refused).",
            ["result"],
            registry=self.registry,
        )
        for result in ("live", "rejected"):
            self.reloads.labels(result)

    def observe_stage(self, stage: str, duration_s: float) -> None:
        """Observe a stage of one or more queries that were processed together."""
        self._stages[stage].observe(duration_s)

    def count_result(self, result: SearchResult, is_filtered: bool) -> None:
        """Count the result of one query."""
        found = len(result.rows)
        self.returned.observe(found)
        if found < result.k:
            self.short.labels("filter" if is_filtered else "eligible").inc()
        if result.fallback:
            self.fallbacks.labels(result.fallback).inc()

    def count_request(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one request; `route` is the template, or "unmatched"."""
        known = method if method in METHODS else "_OTHER"
        self.requests.labels(known, route, status).observe(duration_s)

    def count_rejection(self, reason: str) -> None:
        """Count a request turned away; what is none of REJECTIONS is no such reason."""
        if reason in self.rejected:
            self.rejected[reason].inc()

    def show_bundle(
        self, version: str, manifest: Manifest, made_at_s: float, load_s: float
    ) -> None:
        """Show which bundle is live now, made and loaded when (unix time, seconds)."""
        self.info.clear()
        self.info.labels(version, manifest.index.factory).set(1)
        self.items.set(manifest.items)
        self.index_bytes.set(manifest.files[INDEX_FILE].size_bytes)
        self.recall.clear()
        for count, recall in manifest.index.recall.items():
            self.recall.labels(count).set(recall)
        self.load.set(load_s)
        self.age.set_function(lambda: time.time() - made_at_s)
        self.reloads.labels("live").inc()

    def render(self) -> bytes:
        """Return all of it as Prometheus' text."""
        return generate_latest(self.registry)


def unix_time(moment: str) -> float:
    """Return ISO 8601 as seconds since 1970; without a zone it is taken as UTC."""
    parsed = datetime.fromisoformat(moment)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
