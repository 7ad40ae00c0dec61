"""The floor: our service whole, but /retrieve hands out an answer that lies ready.

    FLOOR_ANSWER=answer.json python -m benchmarks.serving.floor --bundles DIR --port 0

Same middleware, metrics, logs, queue and size of response, through an ordinary FastAPI route;
nothing is parsed, encoded, searched or written as JSON. What is left is what HTTP costs here.
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
    """Return the one route."""
    router = APIRouter()
    ready = Path(os.environ["FLOOR_ANSWER"]).read_bytes()
    work = Work(lambda _: [ready], [[None]])

    @router.post("/retrieve", response_class=Response)
    async def retrieve(request: Request) -> Response:
        with metrics.total_s.time():
            await request.body()
            (answer,) = await service._queue.run(request, work)
            return JsonResponse(answer)

    return router


if __name__ == "__main__":
    service.app.retrieval_routes = floor_routes
    sys.exit(main())
