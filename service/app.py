"""App factory: builds the components from the settings and wires them together."""

import math
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from index.bundle.registry import BundleRegistry
from index.cluster_map_registry import ClusterMapRegistry
from index.cluster_map_stores import FOLDER as MAPS_FOLDER, open_cluster_maps
from index.denylist import (
    FILE as DENYLIST_FILE,
    DenylistStore,
    DenylistWatcher,
    local_denylist,
    open_denylist,
)
from index.errors import ConfigError
from service.bundle_watcher import BundleWatcher
from service.cluster_watcher import ClusterWatcher
from service.errors import install_error_handlers
from service.executor import BoundedExecutor
from service.metrics import Metrics
from service.middleware import BodyLimit, RequestObserver
from service.request_queue import RequestQueue
from service.retrieval_service import RetrievalService
from service.routes.admin import add_bundle_routes, add_cluster_routes, add_denylist_routes
from service.routes.clusters import cluster_routes
from service.routes.embed import embed_routes
from service.routes.retrieval import retrieval_routes, similar_routes
from service.routes.state import state_routes
from service.routing import add_routes, admin_router, disabled_admin_router, install_openapi
from service.schemas.shared import Source
from service.schemas.state import Readiness
from service.server import Lifetime, build_lifespan
from service.settings import Settings
from service.watcher_metrics import WatcherCollector

DENYLIST_BODY_BYTES = 1 << 24


def create_app(settings: Settings, lifetime: Lifetime) -> FastAPI:
    """Build the app; no thread or task runs before its lifespan starts."""
    metrics = Metrics()
    maps, denylist_store = open_stores(settings)
    store_kind: Source = "redis" if settings.secret("redis_url") else "folder"
    live_clusters = ClusterWatcher(maps, store_kind, settings.poll_interval_s)
    copies = [local_denylist(path) for path in denylist_copy_paths(settings)]
    denylist = DenylistWatcher(denylist_store, copies, poll_s=settings.poll_interval_s)
    live_bundle = BundleWatcher(
        BundleRegistry(settings.bundles),
        settings.poll_interval_s,
        metrics,
        on_live=live_clusters.set_bundle,
        denylist_watcher=denylist,
    )
    metrics.registry.register(WatcherCollector(live_bundle, live_clusters, denylist))
    queue = RequestQueue(
        settings.queue_limit,
        settings.queue_timeout_ms / 1_000,
        observe_wait=metrics.queue_s.observe,
    )

    def readiness() -> Readiness:
        return get_readiness(live_bundle, queue, lifetime)

    metrics.ready.set_function(lambda: readiness()["status"] == "ready")
    metrics.queued.set_function(lambda: queue.num_waiting)
    long_searches = BoundedExecutor("long searches", num_threads=1, max_jobs=32)
    service = RetrievalService(queue, long_searches, live_bundle, live_clusters, metrics)
    large_bodies = BoundedExecutor("large bodies", num_threads=1, max_jobs=32)
    many_negatives = BoundedExecutor("negatives", num_threads=1, max_jobs=8)
    admin_executor = BoundedExecutor("admin", num_threads=4, max_jobs=8)

    app = FastAPIOffline(  # serves the scripts of /docs itself: private networks reach no CDN
        redoc_url=None,
        static_url="/docs-static",
        title="esans",
        version=version("esans"),
        description="Candidates for a user, from the bundle that is live.",
        lifespan=build_lifespan(
            live_bundle,
            live_clusters,
            queue,
            large_bodies,
            long_searches,
            many_negatives,
            admin_executor,
        ),
        redirect_slashes=False,
    )
    app.state.large_bodies = large_bodies
    add_routes(app, retrieval_routes(live_bundle, service, metrics))
    add_routes(app, similar_routes(live_bundle, service, metrics))
    add_routes(app, embed_routes(live_bundle, queue))
    add_routes(app, cluster_routes(live_bundle, live_clusters, many_negatives))
    add_routes(app, state_routes(live_bundle, live_clusters, readiness, metrics))
    add_admin_routes(app, settings, live_bundle, denylist, admin_executor)
    install_error_handlers(
        app,
        retry_after_s=max(1, math.ceil(settings.poll_interval_s)),
        on_problem=metrics.count_rejection,
    )
    install_openapi(app, live_bundle.list_example_ids)
    app.add_middleware(
        BodyLimit,
        size_bytes=settings.body_limit_bytes,
        timeout_s=settings.request_timeout_s,
        size_by_path={"/admin/denylist": max(settings.body_limit_bytes, DENYLIST_BODY_BYTES)},
    )
    app.add_middleware(
        RequestObserver, metrics=metrics, lifetime=lifetime, has_log=settings.access_log
    )
    return app


def open_stores(settings: Settings) -> tuple[ClusterMapRegistry, DenylistStore]:
    """Return the stores of cluster maps and denylist, without connecting or writing.

    Raises:
        ConfigError: the Redis URL is invalid.
    """
    url, folder, namespace = settings.secret("redis_url"), settings.bundles, settings.namespace
    try:
        return (
            open_cluster_maps(url, folder / MAPS_FOLDER, namespace),
            open_denylist(url, folder / DENYLIST_FILE, namespace),
        )
    except ConfigError as error:
        raise ConfigError(f"ESANS_REDIS_URL: {error}") from error


def denylist_copy_paths(settings: Settings) -> list[Path]:
    """Return the local files that keep the denylist in case Redis loses its data."""
    copies = [settings.bundles / DENYLIST_FILE] if settings.secret("redis_url") else []
    return [*copies, settings.denylist_copy] if settings.denylist_copy else copies


def get_readiness(live_bundle: BundleWatcher, queue: RequestQueue, lifetime: Lifetime) -> Readiness:
    """Return the readiness: ready if a bundle is live and the queue consumer runs."""
    readiness = live_bundle.readiness()
    if lifetime.is_draining:
        readiness["status"] = "draining"
    elif not queue.is_running:
        readiness["status"] = "stopped"
        reason = "the queue consumer has stopped and no query is answered; see the log and restart"
        readiness["reasons"] = [*readiness.get("reasons", []), reason]
    return readiness


def add_admin_routes(
    app: FastAPI,
    settings: Settings,
    live_bundle: BundleWatcher,
    denylist: DenylistWatcher,
    executor: BoundedExecutor,
) -> None:
    """Add the admin routes if a token is set, else routes that say how to set it.

    They use their own store clients: a watcher's client may be in the middle of a poll.
    """
    token = settings.secret("admin_token")
    if not token:
        add_routes(app, disabled_admin_router())
        return
    maps, denylist_store = open_stores(settings)
    router = admin_router(token)
    add_bundle_routes(router, live_bundle, BundleRegistry(settings.bundles), executor)
    add_cluster_routes(router, maps, executor)
    add_denylist_routes(router, live_bundle, denylist, denylist_store, executor)
    add_routes(app, router)
