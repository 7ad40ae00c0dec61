"""What is counted and timed, in Prometheus' words. Labels never hold ids or unknown paths."""

import time
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
from index.searching.question import Answer, Fallback, Prepared

REQUEST_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
)  # fmt: skip
STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1)
COUNT_BUCKETS = (0, 1, 10, 50, 100, 200, 500, 1_000)
INDEX_FILE = "items.faiss"
STAGES = ("queue", "encode", "search", "write", "total")
REJECTIONS = (
    *("queue-full", "out-of-time", "busy", "stopped", "no-bundle"),
    *("body-too-large", "slow-body", "client-gone"),
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
        self._define_answers()
        self._define_bundle()

    def _define_requests(self) -> None:
        self.requests = Histogram(
            "http_server_request_duration_seconds",
            "From the request's head to the end of the answer.",
            ["method", "route", "status"],
            buckets=REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._request_seconds: dict[tuple[str, str, int], Histogram] = {}
        stages = Histogram(
            "esans_stage_duration_seconds",
            "Parts of a request: queue until its turn, encode from ids to a query, search from "
            "the query to candidates, write as JSON, total from reading the body on.",
            ["stage"],
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self.queue_s, self.encode_s, self.search_s, self.write_s, self.total_s = (
            stages.labels(stage) for stage in STAGES
        )

    def _define_load(self) -> None:
        self.ready = Gauge(
            "esans_ready", "Whether /readyz says that it is.", registry=self.registry
        )
        self.inflight = Gauge(
            "esans_inflight_requests",
            "Requests begun and not answered.",
            registry=self.registry,
        )
        self.queued = Gauge(
            "esans_queued_questions",
            "Questions admitted whose turn has not come.",
            registry=self.registry,
        )
        rejected = Counter(
            "esans_rejected",
            "Requests turned away, cut off or left by their client.",
            ["reason"],
            registry=self.registry,
        )
        self.rejected = {reason: rejected.labels(reason) for reason in REJECTIONS}

    def _define_answers(self) -> None:
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
            "Answers with fewer candidates than asked: all that passed the filter, or all that "
            "were eligible.",
            ["reason"],
            registry=self.registry,
        )
        for reason in ("filter", "eligible"):
            self.short.labels(reason)

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
        self.index_bytes = Gauge(
            "esans_index_bytes", "Size of its index's file.", registry=self.registry
        )
        self.recall = Gauge(
            "esans_index_recall_at_k",
            "What its index finds of the exact best k, measured when it was built.",
            ["k"],
            registry=self.registry,
        )

    def count_answer(self, answer: Answer, asked: Prepared) -> None:
        """Count one answer to a question."""
        found = len(answer.rows)
        self.returned.observe(found)
        if found < asked.count:
            self.short.labels("filter" if asked.wanted else "eligible").inc()
        if answer.fallback:
            self.fallbacks.labels(answer.fallback).inc()

    def count_request(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one request; `route` is the template, or "unmatched"."""
        key = (method if method in METHODS else "_OTHER", route, status)
        seconds = self._request_seconds.get(key)
        if seconds is None:
            seconds = self._request_seconds[key] = self.requests.labels(*key)
        seconds.observe(duration_s)

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

    def written(self) -> bytes:
        """Return all of it as Prometheus' text."""
        return generate_latest(self.registry)
