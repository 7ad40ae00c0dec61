"""The calls that tell how the service is."""

from collections.abc import Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.bundle_watcher import BundleWatcher
from service.cluster_watcher import ClusterWatcher
from service.metrics import Metrics
from service.routing import JsonResponse, Responses, problems
from service.schemas.state import Alive, BundleResponse, Readiness

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def state_routes(
    live_bundle: BundleWatcher,
    live_clusters: ClusterWatcher,
    readiness: Callable[[], Readiness],
    metrics: Metrics,
) -> APIRouter:
    """Return the routes that tell how the service is."""
    router = APIRouter(tags=["state"], default_response_class=JsonResponse)

    @router.head("/livez", include_in_schema=False)  # as some balancers ask
    @router.get(
        "/livez",
        summary="Does the process answer?",
        response_description="It does",
        responses=problems(),
    )
    async def livez() -> Alive:
        return {"status": "alive"}

    ready = problems() | {503: {"model": Readiness, "description": "Not ready, and why"}}

    @router.head("/readyz", include_in_schema=False)
    @router.get(
        "/health",
        summary="The same as /readyz",
        response_model=Readiness,
        response_description="A bundle is live",
        responses=ready,
    )
    @router.get(
        "/readyz",
        summary="Is a bundle live?",
        response_model=Readiness,
        response_description="A bundle is live",
        responses=ready,
    )
    async def readyz() -> Response:
        told = readiness()
        if followed := live_clusters.status():
            told["clusters"] = followed
        return JsonResponse(told, 200 if told["status"] == "ready" else 503)

    unchanged: Responses = {304: {"description": "Not changed since the ETag in If-None-Match"}}

    @router.get(
        "/bundle",
        summary="The manifest of what is live",
        response_model=BundleResponse,
        response_description="The live bundle",
        responses=problems(503) | unchanged,
    )
    async def bundle(request: Request) -> Response:
        live = live_bundle.get().bundle
        headers = {"ETag": f'"{live.version}"', "Cache-Control": "no-cache"}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        manifest = live.manifest.model_dump(mode="json")
        return JsonResponse({"version": live.version, "manifest": manifest}, headers=headers)

    @router.get(
        "/metrics",
        summary="What Prometheus reads",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )
    async def metrics_text() -> Response:
        return Response(metrics.render(), media_type=METRICS_TYPE)

    return router
