"""Floor of the benchmark: the service with a /retrieve route that returns a fixed response.

    FLOOR_RESPONSE=response.json python -m benchmarks.serving.floor --bundles DIR --port 0

Middleware, metrics, logs, queue and response size are the same; nothing is parsed, encoded,
searched or serialized. The rest is the cost of HTTP.
"""

import os
import sys
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

import service.app
from service.__main__ import main
from service.bundle_watcher import BundleWatcher
from service.metrics import Metrics
from service.request_queue import Work
from service.retrieval_service import RetrievalService
from service.routing import JsonResponse


def floor_routes(
    live_bundle: BundleWatcher, service: RetrievalService, metrics: Metrics
) -> APIRouter:
    """Build the router of the fixed response."""
    router = APIRouter()
    fixed = Path(os.environ["FLOOR_RESPONSE"]).read_bytes()
    work = Work(lambda _: [fixed], [[None]])

    @router.post("/retrieve", response_class=Response)
    async def retrieve(request: Request) -> Response:
        with metrics.total_s.time():
            await request.body()
            (body,) = await service._queue.run(request, work)
            return JsonResponse(body)

    return router


if __name__ == "__main__":
    service.app.retrieval_routes = floor_routes
    sys.exit(main())
