"""Cluster map routes: the map in use, and negatives sampled from it."""

from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.responses import Response

from index.cluster_map import NegativeCounts, Negatives, sample_negatives
from service.bundle_watcher import BundleWatcher
from service.cluster_watcher import ClusterWatcher, JoinedClusterMap
from service.executor import BoundedExecutor
from service.json_encoder import encode_json_chunked
from service.routing import JsonResponse, JsonRoute, problem_responses
from service.schemas.clusters import ClustersResponse, NegativesRequest, NegativesResponse

CHUNK_IDS = 20_000  # encoded in one go, about 2 ms
MAX_INLINE_IDS = 11_000  # sampled and encoded in the event loop, about 5 ms


def cluster_routes(
    live_bundle: BundleWatcher, live_clusters: ClusterWatcher, executor: BoundedExecutor
) -> APIRouter:
    """Return the cluster map routes; the executor samples large numbers of negatives."""
    router = APIRouter(
        tags=["clusters"], route_class=JsonRoute, default_response_class=JsonResponse
    )

    @router.get(
        "/clusters",
        summary="The cluster map in use",
        response_description="The cluster map and the status of its watcher",
        responses=problem_responses(404, 503),
    )
    async def clusters() -> ClustersResponse:
        """Return version, sizes, age and source of the cluster map, and its watcher's status.

        404 if there is no map; 503 while the store that may hold one is unreachable.
        """
        live_bundle.get()  # 503 if no bundle is live
        return build_clusters_response(live_clusters.get(), live_clusters)

    @router.post(
        "/negatives",
        summary="Easy and hard negatives for positives, with log expected counts",
        response_model=NegativesResponse,
        response_description="Negatives for each known positive",
        responses=problem_responses(404, 408, 413, 422, 503),
    )
    async def negatives(body: NegativesRequest) -> Response:
        """Sample negatives for a training loop of your own from the current cluster map.

        Subtract the log counts from the scores if the loss estimates the full softmax. The same
        seed and map give the same negatives.
        """
        live_bundle.get()
        joined = live_clusters.get()
        job = partial(build_negatives, joined, body)
        is_fast = joined.held.clusters.is_warm and count_ids(body) <= MAX_INLINE_IDS
        return job() if is_fast else await executor.run(job)

    return router


def build_clusters_response(
    joined: JoinedClusterMap, live_clusters: ClusterWatcher
) -> ClustersResponse:
    """Describe the map in use."""
    source, pointer = joined.held.source, joined.held.pointer
    return {
        "version": joined.version,
        "source": joined.source,
        "items": len(source),
        "unknown_items": joined.unknown_items,
        "level_1_codes": len(source.centroids),
        "level_2_codes": source.num_level_2_codes,
        "temperature_share": source.temperature_share,
        "made": source.made,
        "age_seconds": round(joined.age_s, 3),
        "bundle": joined.catalogue.version,
        "sequence": pointer.sequence if pointer else None,
        "is_pinned": pointer.pinned if pointer else False,
        "follower": live_clusters.status() or {"status": "stopped"},
    }


def count_ids(body: NegativesRequest) -> int:
    """Return the maximum number of ids in the response."""
    return len(body.positives) * (1 + body.easy + body.hard)


def build_negatives(joined: JoinedClusterMap, body: NegativesRequest) -> Response:
    """Sample and encode negatives, all from one map."""
    counts, rng = NegativeCounts(body.easy, body.hard), np.random.default_rng(body.seed)
    items, clusters = joined.catalogue.items, joined.held.clusters
    sampled = sample_negatives(body.positives, items, clusters, counts, rng)
    return JsonResponse(build_negatives_response(joined, sampled, body.easy, body.hard))


def build_negatives_response(
    joined: JoinedClusterMap, sampled: Negatives, easy: int, hard: int
) -> dict[str, Any]:
    """Build a `NegativesResponse` whose lists are already encoded."""
    ids, log_counts = sampled.ids, sampled.sampled.log_counts
    begins = [row * (easy + hard) for row in range(len(sampled.positives))]
    size = max(1, CHUNK_IDS // max(1, easy + hard))
    easy_ids = [ids[begin : begin + easy] for begin in begins]
    hard_ids = [ids[begin + easy : begin + easy + hard] for begin in begins]
    response = {
        "bundle": joined.catalogue.version,
        "clusters": joined.version,
        "positives": sampled.positives,
        "easy": encode_json_chunked(easy_ids, size),
        "easy_log_counts": encode_json_chunked(np.ascontiguousarray(log_counts[:, :easy]), size),
        "hard": encode_json_chunked(hard_ids, size),
        "hard_log_counts": encode_json_chunked(np.ascontiguousarray(log_counts[:, easy:]), size),
    }
    if sampled.unknown:
        response["unknown_items"] = sampled.unknown
    return response
