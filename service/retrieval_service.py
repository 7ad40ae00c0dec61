"""From validated requests to JSON: through the queue, or beside it where it takes long."""

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
from service.schemas.shared import Fault

PART = 32  # queries of a batch request in one call, 4 to 8 ms: more would hold up others
FILTER_COST = 150  # of a query with a filter: more lists are read for it
MAX_TEXTS = 2_000  # ids and values: with more, a query goes to the executor

QueryRequest = RetrieveRequest | SimilarRequest


class RetrievalService:
    """Answers retrieve and similar requests from the live bundle."""

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
        """Return a JSON result for each query, as if each had been asked alone.

        All come from one bundle and one cluster map. Queries of different callers that wait at
        the same time are processed together.

        Raises what the queue raises, UnknownItemError, and BusyError.
        """
        process = partial(self.process, live, self._live_clusters.current())
        found = await self._queue.run(request, work_of(live, process, queries))
        return [
            body if result.is_complete else await self._resubmit(process, one)
            for one, (result, body) in zip(queries, found, strict=True)
        ]

    def process(
        self,
        live: ServedBundle,
        joined: JoinedClusterMap | None,
        queries: Sequence[QueryRequest],
        is_bounded: bool = True,
    ) -> list[tuple[SearchResult, bytes]]:
        """Search and write; a bounded call leaves incomplete what would take long."""
        if is_bounded and text_count(queries[0]) > MAX_TEXTS:  # it is a part by itself
            return [(SearchResult(live.bundle.items, queries[0].k), b"")]
        results = live.retriever.retrieve(
            [query_of(one) for one in queries],
            self._live_bundle.get_denied_rows(live),  # by now, however long it waited
            is_bounded=is_bounded,
            observe=self._metrics.observe_stage,
        )
        begin = time.perf_counter()
        includes = [one.include for one in queries]
        bodies = encode_results(live.bundle, joined, results, includes)
        self._metrics.observe_stage("write", time.perf_counter() - begin)
        for one, result in zip(queries, results, strict=True):
            if result.is_complete:
                self._metrics.count_result(result, bool(one.filter))
        return list(zip(results, bodies, strict=True))

    async def _resubmit(
        self, process: "partial[list[tuple[SearchResult, bytes]]]", query: QueryRequest
    ) -> bytes:
        ((_, body),) = await self._executor.run(partial(process, [query], is_bounded=False))
        return body


def work_of(
    live: ServedBundle,
    process: "partial[list[tuple[SearchResult, bytes]]]",
    queries: Sequence[QueryRequest],
) -> Work[QueryRequest, tuple[SearchResult, bytes]]:
    """Return the work of a request; that of one user may share a call with others."""
    costs = [cost_of(live, one) for one in queries]
    if len(queries) == 1 and costs[0] <= MAX_COST and isinstance(queries[0], RetrieveRequest):
        return Work(process, [queries], key=id(live), cost=costs[0])
    return Work(process, split(queries, costs, PART))


def cost_of(live: ServedBundle, query: QueryRequest) -> int:
    """Estimate what a query takes, in ids looked up: 1 to 2 us each."""
    texts = text_count(query)
    if texts > MAX_TEXTS:
        return MAX_COST + 1  # more than a part may cost
    return texts + query.k + (FILTER_COST if query.filter else 0) + live.retriever.base_cost


def text_count(query: QueryRequest) -> int:
    """Return how many ids and values must be looked up."""
    if isinstance(query, SimilarRequest):
        return len(query.exclude) + len(query.filter)
    values = sum(map(len, query.filter.values())) if query.filter else 0
    return len(query.history or ()) + len(query.exclude) + values


def query_of(query: QueryRequest) -> Query:
    """Convert a request into a query of the index."""
    if isinstance(query, SimilarRequest):
        wanted = filter_of(query.filter)
        return Query(query.k, item_id=query.item_id, exclude=query.exclude, filter=wanted)
    return Query(
        query.k,
        user_id=query.user_id,
        history=query.history,
        exclude=query.exclude,
        exclude_seen=query.exclude_seen,
        filter=query.filter,
    )


def filter_of(conditions: Sequence[str]) -> dict[str, list[str]]:
    """Gather `attribute:value` texts by attribute; the first colon divides them."""
    gathered: dict[str, list[str]] = {}
    for condition in conditions:
        attribute, _, value = condition.partition(":")
        gathered.setdefault(attribute, []).append(value)
    return gathered


def check_filters(live: ServedBundle, filters: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Refuse filters by attributes that the bundle lacks, before anything waits.

    Args:
        filters: the place of each in the request, and the attributes that it names.

    Raises UnknownFilterError with every fault.
    """
    known = live.bundle.manifest.filters
    expected = f"the bundle can be filtered by {', '.join(sorted(known)) or 'none'}"
    faults: list[Fault] = [
        {"location": f"{place}.{name}", "received": name, "expected": expected}
        for place, names in filters
        for name in names
        if name not in known
    ]
    if faults:
        raise UnknownFilterError(faults)
