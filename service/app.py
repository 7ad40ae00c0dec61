"""Wiring only: which parts there are, and how they hold together."""

import math
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from index.bundle.registry import BundleRegistry
from index.denylist import DenylistWatcher
from service.cluster_metrics import ClusterCollector
from service.error_handlers import install_error_handlers
from service.executor import BoundedExecutor
from service.metrics import Metrics
from service.middleware import BodyLimit, BodyLimits, RequestObserver
from service.openapi import complete_openapi
from service.request_queue import RequestQueue
from service.retrieval_service import RetrievalService
from service.routes.bundle_admin import bundle_admin_routes
from service.routes.cluster_admin import admin_routes
from service.routes.clusters import cluster_routes
from service.routes.deny_admin import deny_admin_routes
from service.routes.embed import embed_routes
from service.routes.retrieval import retrieval_routes, similar_routes
from service.routes.state import state_routes
from service.schemas.state import Readiness
from service.server import Lifetime, lifespan_of
from service.settings import Settings, secrets_of
from service.state.bundle_watcher import LiveBundle
from service.state.cluster_watcher import LiveClusters
from service.state.denylist import DenyCollector
from service.state.status import readiness_of
from service.state.stores import deny_watcher, open_clusters, open_deny

DENY_BODY_BYTES = 1 << 24


def create_app(settings: Settings, lifetime: Lifetime) -> FastAPI:
    """Join the parts; nothing runs before the app's lifespan begins."""
    metrics = Metrics()
    secrets = secrets_of(settings)
    live_clusters = LiveClusters(
        open_clusters(settings, secrets),
        "redis" if secrets.redis_url else "folder",
        settings.poll_s,
    )
    deny = deny_watcher(settings, secrets)
    live_bundle = LiveBundle(
        BundleRegistry(settings.bundles),
        settings.poll_s,
        metrics,
        on_live=live_clusters.take,
        deny=deny,
    )
    metrics.registry.register(ClusterCollector(live_clusters))
    metrics.registry.register(DenyCollector(deny))
    queue = RequestQueue(
        settings.queue_limit,
        settings.budget_ms / 1_000,
        waited=metrics.queue_s.observe,
    )

    def readiness() -> Readiness:
        return readiness_of(live_bundle, queue.is_running, lifetime.is_draining)

    metrics.ready.set_function(lambda: readiness()["status"] == "ready")
    metrics.queued.set_function(lambda: queue.waiting)
    long_searches = BoundedExecutor("long searches", thread_count=1, most=32)
    service = RetrievalService(queue, long_searches, live_bundle, live_clusters, metrics)
    many_negatives = BoundedExecutor("negatives", thread_count=1, most=8)
    moves = BoundedExecutor("admin", thread_count=4, most=8)

    app = FastAPIOffline(  # /docs brings its own scripts: a private network reaches no CDN
        redoc_url=None,
        static_url="/docs-static",
        title="esans",
        version=version("esans"),
        description="Candidates for a user, from the bundle that is live.",
        lifespan=lifespan_of(
            live_bundle, live_clusters, queue, long_searches, many_negatives, moves
        ),
        redirect_slashes=False,
    )
    app.include_router(retrieval_routes(live_bundle, service, metrics))
    app.include_router(similar_routes(live_bundle, service, metrics))
    app.include_router(embed_routes(live_bundle, queue))
    app.include_router(cluster_routes(live_bundle, live_clusters, many_negatives))
    app.include_router(state_routes(live_bundle, live_clusters, readiness, metrics))
    add_admin_calls(app, settings, live_bundle, deny, moves)
    install_error_handlers(
        app,
        retry_after_s=max(1, math.ceil(settings.poll_s)),
        on_problem=metrics.count_rejection,
    )
    complete_openapi(app)
    app.add_middleware(BodyLimit, limits=limits_of(settings))
    app.add_middleware(
        RequestObserver, metrics=metrics, lifetime=lifetime, has_log=settings.access_log
    )
    return app


def limits_of(settings: Settings) -> BodyLimits:
    """Return the bounds of request bodies; a deny list is longer than other bodies."""
    size_bytes = settings.body_limit_bytes
    larger = {"/admin/deny": max(size_bytes, DENY_BODY_BYTES)}
    return BodyLimits(size_bytes, settings.request_timeout_s, larger)


def add_admin_calls(
    app: FastAPI,
    settings: Settings,
    live_bundle: LiveBundle,
    deny: DenylistWatcher,
    executor: BoundedExecutor,
) -> None:
    """Add the operator's calls, if there is a token.

    Their stores have clients of their own: a watcher's may be in the middle of a poll.
    """
    secrets = secrets_of(settings)
    token = secrets.admin_token
    if not token:
        return
    maps, denied = open_clusters(settings, secrets), open_deny(settings, secrets)
    shelf = BundleRegistry(settings.bundles)
    app.include_router(admin_routes(maps, token, executor))
    app.include_router(bundle_admin_routes(live_bundle, shelf, token, executor))
    app.include_router(deny_admin_routes(live_bundle, deny, denied, token, executor))
