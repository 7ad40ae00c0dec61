"""The calls about cluster maps: which one is used, and negatives drawn from it."""

from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.responses import Response

from index.cluster_map import Counts, Negatives, negatives_for
from service.bundle_watcher import BundleWatcher
from service.cluster_watcher import ClusterWatcher, JoinedClusterMap
from service.executor import BoundedExecutor
from service.json_encoder import json_in_parts
from service.routing import JsonResponse, JsonRoute, problems
from service.schemas.clusters import (
    ClustersResponse,
    NegativesRequest,
    NegativesResponse,
)

IDS_IN_PART = 20_000  # written in one go, about 2 ms
INLINE_IDS = 11_000  # written without leaving the event loop, about 5 ms


def cluster_routes(
    live_bundle: BundleWatcher, live_clusters: ClusterWatcher, executor: BoundedExecutor
) -> APIRouter:
    """Return the routes; answers of many negatives are made beside the event loop."""
    router = APIRouter(
        tags=["clusters"], route_class=JsonRoute, default_response_class=JsonResponse
    )

    @router.get(
        "/clusters",
        summary="The card of the cluster map in use",
        response_description="The map, and how it is followed",
        responses=problems(404, 503),
    )
    async def clusters() -> ClustersResponse:
        live_bundle.get()  # without a bundle there are no items to speak of
        return card_of(live_clusters.get(), live_clusters)

    @router.post(
        "/negatives",
        summary="Easy and hard negatives for positives, with their log expected counts",
        response_model=NegativesResponse,
        response_description="Negatives of each known positive",
        responses=problems(404, 408, 413, 422, 503),
    )
    async def negatives(body: NegativesRequest) -> Response:
        live_bundle.get()
        work = partial(draw, live_clusters.get(), body)
        return work() if ids_of(body) <= INLINE_IDS else await executor.run(work)

    return router


def card_of(joined: JoinedClusterMap, live_clusters: ClusterWatcher) -> ClustersResponse:
    """Describe the map in use."""
    source, pointer = joined.held.source, joined.held.pointer
    return {
        "version": joined.version,
        "source": joined.source,
        "items": len(source),
        "unknown_items": joined.unknown_items,
        "level_1_codes": len(source.centroids),
        "level_2_codes": source.cell_width,
        "temperature_share": source.temperature_share,
        "made": source.made,
        "age_seconds": round(joined.age_s, 3),
        "bundle": joined.catalogue.version,
        "sequence": pointer.sequence if pointer else None,
        "is_pinned": pointer.pinned if pointer else False,
        "follower": live_clusters.status() or {"status": "stopped"},
    }


def ids_of(body: NegativesRequest) -> int:
    """Return how many ids an answer holds at most."""
    return len(body.positives) * (1 + body.easy + body.hard)


def draw(joined: JoinedClusterMap, body: NegativesRequest) -> Response:
    """Draw and write; all of it works on one map."""
    counts, rng = Counts(body.easy, body.hard), np.random.default_rng(body.seed)
    items, clusters = joined.catalogue.items, joined.held.clusters
    found = negatives_for(body.positives, items, clusters, counts, rng)
    return JsonResponse(told_of(joined, found, body.easy, body.hard))


def told_of(joined: JoinedClusterMap, found: Negatives, easy: int, hard: int) -> dict[str, Any]:
    """Put negatives into the caller's words: a `NegativesResponse`, its lists written already."""
    ids, log_counts = found.ids, found.drawn.log_counts
    begins = [place * (easy + hard) for place in range(len(found.positives))]
    rows = max(1, IDS_IN_PART // max(1, easy + hard))
    told = {
        "bundle": joined.catalogue.version,
        "clusters": joined.version,
        "positives": found.positives,
        "easy": json_in_parts([ids[begin : begin + easy] for begin in begins], rows),
        "easy_log_counts": json_in_parts(np.ascontiguousarray(log_counts[:, :easy]), rows),
        "hard": json_in_parts([ids[begin + easy : begin + easy + hard] for begin in begins], rows),
        "hard_log_counts": json_in_parts(np.ascontiguousarray(log_counts[:, easy:]), rows),
    }
    if found.unknown:
        told["unknown_items"] = found.unknown
    return told
