"""The calls that tell how the service is."""

from collections.abc import Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.bodies import NO_STORE, json_response
from service.metrics import Metrics
from service.openapi import answers
from service.schemas.state import Alive, BundleAnswer, Readiness
from service.state.bundle_watcher import LiveBundle
from service.state.cluster_watcher import LiveClusters

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def state_routes(
    live_bundle: LiveBundle,
    live_clusters: LiveClusters,
    readiness: Callable[[], Readiness],
    metrics: Metrics,
) -> APIRouter:
    """Return the routes that tell how the service is."""
    router = APIRouter(tags=["state"])

    @router.head("/livez", include_in_schema=False)  # as some balancers ask
    @router.get(
        "/livez",
        summary="Does the process answer?",
        responses=answers("It does", Alive),
        response_class=Response,
    )
    async def livez() -> Response:
        told: Alive = {"status": "alive"}
        return json_response(told, headers=NO_STORE)

    ready = answers("A bundle is live", Readiness)
    ready[503] = {**ready[200], "description": "Not ready, and why"}

    @router.head("/readyz", include_in_schema=False)
    @router.get(
        "/health", summary="The same as /readyz", responses=ready, response_class=Response
    )
    @router.get(
        "/readyz", summary="Is a bundle live?", responses=ready, response_class=Response
    )
    async def readyz() -> Response:
        told = readiness()
        if followed := live_clusters.told():
            told["clusters"] = followed
        return json_response(told, 200 if told["status"] == "ready" else 503, NO_STORE)

    described = answers("The live bundle", BundleAnswer, 503)
    described[304] = {"description": "Not changed since the ETag in If-None-Match"}

    @router.get(
        "/bundle",
        summary="The manifest of what is live",
        responses=described,
        response_class=Response,
    )
    async def bundle(request: Request) -> Response:
        live = live_bundle.get().bundle
        headers = {"ETag": f'"{live.version}"', "Cache-Control": "no-cache"}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        manifest = live.manifest.model_dump(mode="json")
        return json_response({"version": live.version, "manifest": manifest}, headers=headers)

    @router.get(
        "/metrics",
        summary="What Prometheus reads",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )
    async def metrics_text() -> Response:
        return Response(metrics.written(), media_type=METRICS_TYPE)

    return router
