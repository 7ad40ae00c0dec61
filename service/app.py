"""Wiring only: which parts there are, and how they hold together."""

import math
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from index.bundle.registry import BundleRegistry
from index.cluster_map_registry import FOLDER as MAPS_FOLDER, ClusterMapRegistry, open_cluster_maps
from index.denylist import (
    FILE as DENYLIST_FILE,
    DenylistStore,
    DenylistWatcher,
    local_denylist,
    open_denylist,
)
from index.errors import ConfigError
from service.bundle_watcher import LiveBundle
from service.cluster_watcher import LiveClusters
from service.errors import install_error_handlers
from service.executor import BoundedExecutor
from service.metrics import Metrics
from service.middleware import BodyLimit, RequestObserver
from service.request_queue import RequestQueue
from service.retrieval_service import RetrievalService
from service.routes.admin import add_bundle_routes, add_cluster_routes, add_deny_routes
from service.routes.clusters import cluster_routes
from service.routes.embed import embed_routes
from service.routes.retrieval import retrieval_routes, similar_routes
from service.routes.state import state_routes
from service.routing import admin_router, complete_openapi
from service.schemas.shared import Source
from service.schemas.state import Readiness
from service.server import Lifetime, lifespan_of
from service.settings import Settings
from service.watcher_metrics import WatcherCollector

DENY_BODY_BYTES = 1 << 24


def create_app(settings: Settings, lifetime: Lifetime) -> FastAPI:
    """Join the parts; nothing runs before the app's lifespan begins."""
    metrics = Metrics()
    maps, denied = open_stores(settings)
    kind: Source = "redis" if settings.secret("redis_url") else "folder"
    live_clusters = LiveClusters(maps, kind, settings.poll_interval_s)
    copies = [local_denylist(file) for file in denylist_copies(settings)]
    deny = DenylistWatcher(denied, copies, poll_s=settings.poll_interval_s)
    live_bundle = LiveBundle(
        BundleRegistry(settings.bundles),
        settings.poll_interval_s,
        metrics,
        on_live=live_clusters.take,
        deny=deny,
    )
    metrics.registry.register(WatcherCollector(live_clusters, deny))
    queue = RequestQueue(
        settings.queue_limit, settings.queue_timeout_ms / 1_000, waited=metrics.queue_s.observe
    )

    def readiness() -> Readiness:
        return readiness_of(live_bundle, queue, lifetime)

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
        retry_after_s=max(1, math.ceil(settings.poll_interval_s)),
        on_problem=metrics.count_rejection,
    )
    complete_openapi(app)
    app.add_middleware(
        BodyLimit,
        size_bytes=settings.body_limit_bytes,
        timeout_s=settings.request_timeout_s,
        size_by_path={"/admin/denylist": max(settings.body_limit_bytes, DENY_BODY_BYTES)},
    )
    app.add_middleware(
        RequestObserver, metrics=metrics, lifetime=lifetime, has_log=settings.access_log
    )
    return app


def open_stores(settings: Settings) -> tuple[ClusterMapRegistry, DenylistStore]:
    """Return cluster maps and denylist; nothing is connected or written yet.

    Raises ConfigError if the address of Redis is invalid.
    """
    url, folder, namespace = settings.secret("redis_url"), settings.bundles, settings.namespace
    try:
        return (
            open_cluster_maps(url, folder / MAPS_FOLDER, namespace),
            open_denylist(url, folder / DENYLIST_FILE, namespace),
        )
    except ConfigError as error:
        raise ConfigError(f"ESANS_REDIS_URL: {error}") from error


def denylist_copies(settings: Settings) -> list[Path]:
    """Return the files that keep copies of the denylist, where Redis, which forgets, holds it."""
    copies = [settings.bundles / DENYLIST_FILE] if settings.secret("redis_url") else []
    return [*copies, settings.denylist_copy] if settings.denylist_copy else copies


def readiness_of(live_bundle: LiveBundle, queue: RequestQueue, lifetime: Lifetime) -> Readiness:
    """Tell whether requests can be answered here: a bundle is live, somebody answers."""
    told = live_bundle.readiness()
    if lifetime.is_draining:
        told["status"] = "draining"
    elif not queue.is_running:
        told["status"] = "stopped"
        reason = "questions are no longer answered; the log tells why; restart"
        told["reasons"] = [*told.get("reasons", []), reason]
    return told


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
    token = settings.secret("admin_token")
    if not token:
        return
    maps, denied = open_stores(settings)
    router = admin_router(token)
    add_bundle_routes(router, live_bundle, BundleRegistry(settings.bundles), executor)
    add_cluster_routes(router, maps, executor)
    add_deny_routes(router, live_bundle, deny, denied, executor)
    app.include_router(router)
