"""Retrieval service: from validated requests to JSON, in the queue or in the executor."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request

from index.search.query import Query, SearchResult
from service.bundle_watcher import BundleWatcher, ServedBundle
from service.cluster_watcher import ClusterWatcher, JoinedClusterMap
from service.errors import BusyError, QueueFullError, QueueTimeoutError, UnknownFilterError
from service.executor import BoundedExecutor
from service.json_encoder import encode_results
from service.logging_config import fields
from service.metrics import Metrics
from service.request_queue import MAX_COST, RequestQueue, Work, split
from service.schemas.retrieval import RetrieveRequest, SimilarRequest
from service.schemas.shared import FieldError

MAX_PART_QUERIES = 32  # of a batch request in one call, 4 to 8 ms: more would delay others
FILTER_COST = 150  # of a query with a filter: it probes more inverted lists
MAX_TEXTS = 2_000  # ids and filter values; a query with more runs in the executor

MAX_GROUP_CANDIDATES = 10_000  # of a batch response in memory: 0.5 to 3 MB
STREAM_TIMEOUT_S = 60.0
STREAM_RETRY_S = 0.05

QueryRequest = RetrieveRequest | SimilarRequest
Process = partial[list[tuple[SearchResult, bytes]]]

log = logging.getLogger("service")


class RetrievalService:
    """Serves retrieve and similar requests from the live bundle."""

    def __init__(
        self,
        queue: RequestQueue,
        executor: BoundedExecutor,
        live_bundle: BundleWatcher,
        live_clusters: ClusterWatcher,
        metrics: Metrics,
    ) -> None:
        self._queue = queue
        self._executor = executor
        self._live_bundle = live_bundle
        self._live_clusters = live_clusters
        self._metrics = metrics

    async def retrieve(
        self, request: Request, live: ServedBundle, queries: Sequence[QueryRequest]
    ) -> list[bytes]:
        """Return a JSON result for each query, equal to that of the query alone.

        All use one bundle and one cluster map. Queries of different requests that wait at the
        same time are processed together.

        Raises:
            UnknownItemError: a similar request names an item that the bundle lacks.
            BusyError: the executor is full.
            RequestError: whatever the queue raises.
        """
        process = partial(self.process, live, self._live_clusters.current())
        return await self._run(request, live, process, queries)

    async def stream(
        self, request: Request, live: ServedBundle, groups: Sequence[Sequence[QueryRequest]]
    ) -> AsyncIterator[list[bytes]]:
        """Yield the results of each group as `retrieve` returns them, when the caller asks.

        The first group raises what `retrieve` raises. Later ones wait while the service is
        overloaded, and the stream ends with ClientDisconnect after `STREAM_TIMEOUT_S`: a client
        that reads slowly must not keep a replaced bundle in memory.
        """
        process = partial(self.process, live, self._live_clusters.current())
        yield await self._run(request, live, process, groups[0])
        deadline_s = time.monotonic() + STREAM_TIMEOUT_S
        for group in groups[1:]:
            yield await self._run_until(
                deadline_s, partial(self._run, request, live, process, group)
            )

    async def _run(
        self,
        request: Request,
        live: ServedBundle,
        process: Process,
        queries: Sequence[QueryRequest],
    ) -> list[bytes]:
        """Process queries in the queue, and those too expensive for it in the executor."""
        processed = await self._queue.run(request, build_work(live, process, queries))
        return [
            body if result.is_complete else await self._resubmit(process, query)
            for query, (result, body) in zip(queries, processed, strict=True)
        ]

    def process(
        self,
        live: ServedBundle,
        joined: JoinedClusterMap | None,
        queries: Sequence[QueryRequest],
        is_bounded: bool = True,
    ) -> list[tuple[SearchResult, bytes]]:
        """Search and write JSON; a bounded call leaves expensive queries incomplete."""
        if is_bounded and count_texts(queries[0]) > MAX_TEXTS:  # such a query is its own part
            return [(SearchResult(live.bundle.items, queries[0].k), b"")]
        results = live.retriever.retrieve(
            [build_query(query) for query in queries],
            # the current denylist, however long the query waited
            self._live_bundle.get_denied_rows(live),
            is_bounded=is_bounded,
            observe=self._metrics.observe_stage,
        )
        begin = time.perf_counter()
        includes = [query.include for query in queries]
        bodies = encode_results(live.bundle, joined, results, includes)
        self._metrics.observe_stage("write", time.perf_counter() - begin)
        for query, result in zip(queries, results, strict=True):
            if result.is_complete:
                self._metrics.count_result(result, bool(query.filter))
        return list(zip(results, bodies, strict=True))

    async def _run_until(
        self, deadline_s: float, run: Callable[[], Coroutine[Any, Any, list[bytes]]]
    ) -> list[bytes]:
        """Try again while the service is overloaded; raise ClientDisconnect at the deadline."""
        while time.monotonic() < deadline_s:
            try:
                return await run()
            except (QueueFullError, QueueTimeoutError, BusyError):
                await asyncio.sleep(STREAM_RETRY_S)
        log.warning("response cut", extra=fields(timeout_s=STREAM_TIMEOUT_S))
        raise ClientDisconnect

    async def _resubmit(self, process: Process, query: QueryRequest) -> bytes:
        ((_, body),) = await self._executor.run(partial(process, [query], is_bounded=False))
        return body


def build_work(
    live: ServedBundle, process: Process, queries: Sequence[QueryRequest]
) -> Work[QueryRequest, tuple[SearchResult, bytes]]:
    """Build the work of a request; a single cheap query may share a call with others."""
    costs = [estimate_cost(live, query) for query in queries]
    if len(queries) == 1 and costs[0] <= MAX_COST and isinstance(queries[0], RetrieveRequest):
        return Work(process, [queries], key=id(live), cost=costs[0])
    return Work(process, split(queries, costs, MAX_PART_QUERIES))


def group_queries(queries: Sequence[RetrieveRequest]) -> list[Sequence[RetrieveRequest]]:
    """Split the queries of a batch request into groups whose results are sent together."""
    return split(queries, [query.k for query in queries], len(queries), MAX_GROUP_CANDIDATES)


def estimate_cost(live: ServedBundle, query: QueryRequest) -> int:
    """Estimate the cost of a query in id lookups of 1 to 2 us."""
    texts = count_texts(query)
    if texts > MAX_TEXTS:
        return MAX_COST + 1  # above the limit of a part
    return texts + query.k + (FILTER_COST if query.filter else 0) + live.retriever.base_cost


def count_texts(query: QueryRequest) -> int:
    """Return how many ids and filter values a query looks up."""
    if isinstance(query, SimilarRequest):
        return len(query.exclude) + len(query.filter)
    values = sum(map(len, query.filter.values())) if query.filter else 0
    return len(query.history or ()) + len(query.exclude) + values


def build_query(query: QueryRequest) -> Query:
    """Convert a request into a query of the index."""
    if isinstance(query, SimilarRequest):
        parsed = parse_filter(query.filter)
        return Query(query.k, item_id=query.item_id, exclude=query.exclude, filter=parsed)
    return Query(
        query.k,
        user_id=query.user_id,
        history=query.history,
        exclude=query.exclude,
        exclude_seen=query.exclude_seen,
        filter=query.filter,
    )


def parse_filter(conditions: Sequence[str]) -> dict[str, list[str]]:
    """Group `attribute:value` texts by attribute; split at the first colon."""
    values_by_attribute: dict[str, list[str]] = {}
    for condition in conditions:
        attribute, _, value = condition.partition(":")
        values_by_attribute.setdefault(attribute, []).append(value)
    return values_by_attribute


def validate_filters(live: ServedBundle, filters: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Reject filters by attributes that the bundle lacks, before the request is queued.

    Args:
        filters: the location of each in the request, and the attributes that it names.

    Raises:
        UnknownFilterError: with every unknown attribute.
    """
    known = live.bundle.manifest.filters
    expected = f"an attribute of the live bundle: {', '.join(sorted(known)) or 'none'}"
    errors: list[FieldError] = [
        {"location": f"{location}.{name}", "received": name, "expected": expected}
        for location, names in filters
        for name in names
        if name not in known
    ]
    if errors:
        raise UnknownFilterError(errors)
