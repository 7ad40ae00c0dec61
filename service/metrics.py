"""Prometheus metrics of the service. Labels never hold ids or unmatched paths."""

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
from service.logging_config import count_dropped_lines

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
    """Metrics of one app in its own registry."""

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
            "Duration of HTTP requests, from the request head to the end of the response.",
            ["method", "route", "status"],
            buckets=REQUEST_BUCKETS,
        )
        stages = histogram(
            "esans_stage_duration_seconds",
            "Duration of the stages of a retrieval request: queue (waiting), encode (ids to query "
            "vector), search (query vector to candidates), write (candidates to JSON), total "
            "(including reading the body).",
            ["stage"],
            buckets=STAGE_BUCKETS,
        )
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self.queue_s, self.total_s = self._stages["queue"], self._stages["total"]

    def _define_load(self) -> None:
        gauge = partial(Gauge, registry=self.registry)
        self.ready = gauge(
            "esans_ready", "Whether the service is ready: 1 while /readyz returns 200, else 0."
        )
        self.inflight = gauge("esans_inflight_requests", "HTTP requests in progress.")
        self.queued = gauge("esans_queued_queries", "Queries waiting in the request queue.")
        gauge(
            "esans_log_lines_dropped", "Log lines dropped since nothing read them fast enough."
        ).set_function(count_dropped_lines)
        rejected = Counter(
            "esans_rejected",
            "Requests rejected, timed out or abandoned by the client, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.rejected = {reason: rejected.labels(reason) for reason in REJECTIONS}

    def _define_results(self) -> None:
        counter = partial(Counter, registry=self.registry)
        self.fallbacks = counter(
            "esans_fallback", "Results from the popularity fallback, by reason.", ["reason"]
        )
        self.short = counter(
            "esans_short_results",
            "Results with fewer than k candidates, by reason: too few items pass the filter "
            "(filter) or remain after exclusions, seen items and denylist (eligible).",
            ["reason"],
        )
        for reason in get_args(Fallback):
            self.fallbacks.labels(reason)  # export the series at 0
        for reason in ("filter", "eligible"):
            self.short.labels(reason)
        self.returned = Histogram(
            "esans_candidates_returned",
            "Candidates per result.",
            buckets=COUNT_BUCKETS,
            registry=self.registry,
        )

    def _define_bundle(self) -> None:
        gauge = partial(Gauge, registry=self.registry)
        self.info = gauge(
            "esans_bundle_info",
            "Version and index type of the live bundle; the value is always 1.",
            ["version", "index"],
        )
        self.age = gauge("esans_bundle_age_seconds", "Seconds since the live bundle was created.")
        self.load = gauge(
            "esans_bundle_load_seconds", "Seconds it took to open and warm up the live bundle."
        )
        self.items = gauge("esans_index_items", "Items in the live bundle.")
        self.index_bytes = gauge("esans_index_bytes", "Size of the live bundle's ANN index file.")
        self.recall = gauge(
            "esans_index_recall_at_k",
            "Recall@k of the live bundle's ANN index against exact search, measured at publishing.",
            ["k"],
        )
        self.reloads = Counter(
            "esans_bundle_reloads",
            "Bundles that went live or were rejected, by result.",
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
        num_candidates = len(result.rows)
        self.returned.observe(num_candidates)
        if num_candidates < result.k:
            self.short.labels("filter" if is_filtered else "eligible").inc()
        if result.fallback:
            self.fallbacks.labels(result.fallback).inc()

    def count_request(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one request; `route` is the route template or "unmatched"."""
        known = method if method in METHODS else "_OTHER"
        self.requests.labels(known, route, status).observe(duration_s)

    def count_rejection(self, reason: str) -> None:
        """Count a rejected request; reasons other than REJECTIONS are ignored."""
        if reason in self.rejected:
            self.rejected[reason].inc()

    def set_bundle(
        self, version: str, manifest: Manifest, created_at_s: float, load_s: float
    ) -> None:
        """Set the metrics of the bundle that goes live; `created_at_s` is Unix time."""
        self.info.clear()
        self.info.labels(version, manifest.index.factory).set(1)
        self.items.set(manifest.items)
        self.index_bytes.set(manifest.files[INDEX_FILE].size_bytes)
        self.recall.clear()
        for count, recall in manifest.index.recall.items():
            self.recall.labels(count).set(recall)
        self.load.set(load_s)
        self.age.set_function(lambda: time.time() - created_at_s)
        self.reloads.labels("live").inc()

    def render(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self.registry)


def unix_time(timestamp: str) -> float:
    """Return an ISO 8601 timestamp as Unix time in seconds; no zone means UTC."""
    parsed = datetime.fromisoformat(timestamp)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
