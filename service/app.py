"""Wiring only: which parts there are, and how they hold together."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from index.shelf import Shelf
from service.live_bundle import LiveBundle
from service.metrics import Metrics
from service.middleware import RequestObserver
from service.openapi import complete_openapi
from service.problems import install_problems
from service.routes import retrieval_routes, state_routes
from service.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Join the parts; nothing runs before the app's lifespan begins."""
    metrics = Metrics()
    live_bundle = LiveBundle(Shelf(settings.bundles), settings.poll_s, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live_bundle.start()
        try:
            yield
        finally:
            await asyncio.to_thread(live_bundle.stop)

    app = FastAPIOffline(  # /docs brings its own scripts: a private network reaches no CDN
        redoc_url=None,
        static_url="/docs-static",
        title="esans",
        version=version("esans"),
        description="Candidates for a user, from the bundle that is live.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.include_router(retrieval_routes(live_bundle, metrics, settings.body_limit_bytes))
    app.include_router(state_routes(live_bundle, metrics))
    install_problems(app, retry_after_s=max(1, math.ceil(settings.poll_s)))
    complete_openapi(app)
    app.add_middleware(RequestObserver, metrics=metrics)
    return app
