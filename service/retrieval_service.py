"""Retrieval service: from validated requests to JSON, in the queue or in the executor."""

import time
from collections.abc import Iterable, Sequence
from functools import partial

from starlette.requests import Request

from index.search.query import Query, SearchResult
from service.bundle_watcher import BundleWatcher, ServedBundle
from service.cluster_watcher import ClusterWatcher, JoinedClusterMap
from service.errors import UnknownFilterError
from service.executor import BoundedExecutor
from service.json_encoder import encode_results
from service.metrics import Metrics
from service.request_queue import MAX_COST, RequestQueue, Work, split
from service.schemas.retrieval import RetrieveRequest, SimilarRequest
from service.schemas.shared import FieldError

MAX_PART_QUERIES = 32  # of a batch request in one call, 4 to 8 ms: more would delay others
FILTER_COST = 150  # of a query with a filter: it probes more inverted lists
MAX_TEXTS = 2_000  # ids and filter values; a query with more runs in the executor

QueryRequest = RetrieveRequest | SimilarRequest


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

    async def _resubmit(
        self, process: "partial[list[tuple[SearchResult, bytes]]]", query: QueryRequest
    ) -> bytes:
        ((_, body),) = await self._executor.run(partial(process, [query], is_bounded=False))
        return body


def build_work(
    live: ServedBundle,
    process: "partial[list[tuple[SearchResult, bytes]]]",
    queries: Sequence[QueryRequest],
) -> Work[QueryRequest, tuple[SearchResult, bytes]]:
    """Build the work of a request; a single cheap query may share a call with others."""
    costs = [estimate_cost(live, query) for query in queries]
    if len(queries) == 1 and costs[0] <= MAX_COST and isinstance(queries[0], RetrieveRequest):
        return Work(process, [queries], key=id(live), cost=costs[0])
    return Work(process, split(queries, costs, MAX_PART_QUERIES))


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
