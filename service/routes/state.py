"""State routes: liveness, readiness, live bundle and metrics."""

from collections.abc import Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.bundle_watcher import BundleWatcher
from service.cluster_watcher import ClusterWatcher
from service.metrics import Metrics
from service.routing import JsonResponse, Responses, problem_responses
from service.schemas.state import Alive, BundleResponse, Readiness

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def state_routes(
    live_bundle: BundleWatcher,
    live_clusters: ClusterWatcher,
    readiness: Callable[[], Readiness],
    metrics: Metrics,
) -> APIRouter:
    """Return the state routes."""
    router = APIRouter(tags=["state"], default_response_class=JsonResponse)

    @router.get("/", include_in_schema=False)
    async def root(request: Request) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")

    @router.head("/livez", include_in_schema=False)  # some load balancers send HEAD
    @router.get(
        "/livez",
        summary="Liveness probe",
        response_description="The process is alive",
        responses=problem_responses(),
    )
    async def livez() -> Alive:
        """Return 200 while the process responds, also without a bundle and while draining."""
        return {"status": "alive"}

    ready = problem_responses() | {
        503: {"model": Readiness, "description": "Not ready, with the reasons."}
    }

    @router.head("/health", include_in_schema=False)
    @router.head("/readyz", include_in_schema=False)
    @router.get(
        "/health",
        summary="Readiness probe, alias of /readyz",
        response_model=Readiness,
        response_description="A bundle is live",
        responses=ready,
    )
    @router.get(
        "/readyz",
        summary="Readiness probe",
        response_model=Readiness,
        response_description="A bundle is live",
        responses=ready,
    )
    async def readyz() -> Response:
        """Return 200 if a bundle is live, else 503 with the reasons.

        Cluster map and denylist are reported too; they do not affect readiness.
        """
        response = readiness()
        if clusters := live_clusters.status():
            response["clusters"] = clusters
        return JsonResponse(response, 200 if response["status"] == "ready" else 503)

    unchanged: Responses = {304: {"description": "Not modified: the ETag matches If-None-Match."}}

    @router.get(
        "/bundle",
        summary="Manifest of the live bundle",
        response_model=BundleResponse,
        response_description="The live bundle",
        responses=problem_responses(503) | unchanged,
    )
    async def bundle(request: Request) -> Response:
        """Return version and manifest: counts, filters, attributes, metrics, configuration.

        The ETag is the version: poll with `If-None-Match`.
        """
        live = live_bundle.get().bundle
        headers = {"ETag": f'"{live.version}"', "Cache-Control": "no-cache"}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        manifest = live.manifest.model_dump(mode="json")
        return JsonResponse({"version": live.version, "manifest": manifest}, headers=headers)

    @router.get(
        "/metrics",
        summary="Metrics in the Prometheus text format",
        response_description="Metrics",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )
    async def metrics_text() -> Response:
        """Return counters, gauges and histograms of this process; scrape every replica."""
        return Response(metrics.render(), media_type=METRICS_TYPE)

    return router
