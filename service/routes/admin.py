"""Admin routes behind the bearer token: bundles, cluster maps and denylist."""

import asyncio
import time
from functools import partial

from fastapi import APIRouter

from index.bundle.reader import open_bundle
from index.bundle.registry import BundlePointer, BundleRegistry
from index.cluster_map_registry import ClusterMapRegistry, ClusterPointer
from index.denylist import Denylist, DenylistStore, DenylistWatcher
from index.errors import (
    BundleError,
    InvalidBundleError,
    NoBundleError,
    ReadOnlyBundlesError,
    RejectedBundleError,
    StoreUnreachableError,
)
from index.storage.local import READ_ONLY
from service.bundle_watcher import BundleWatcher
from service.executor import BoundedExecutor
from service.routing import problem_responses
from service.schemas.admin import (
    ClusterPointerResponse,
    DenylistRequest,
    DenylistResponse,
    PointerRequest,
    ReloadResponse,
    RollbackRequest,
    RollbackResponse,
)

RELOAD_TIMEOUT_S = 60.0  # a bundle of a million items opens in two; a slow volume takes longer
DENYLIST_TIMEOUT_S = 30.0  # a store responds within a second
STORE_TIMEOUT_S = 5.0  # above the store's own timeouts; a bound in any case


def add_bundle_routes(
    router: APIRouter,
    live_bundle: BundleWatcher,
    bundles: BundleRegistry,
    executor: BoundedExecutor,
) -> None:
    """Add the bundle routes; the executor opens bundles and moves the pointer."""

    @router.post(
        "/reload",
        summary="Load the current bundle now and wait until it is live or rejected",
        response_description="The live bundle",
        responses=problem_responses(401, 409, 503),
    )
    async def reload_now() -> ReloadResponse:
        """Open the current bundle without waiting for the next poll; retries a rejected one.

        409 if it was rejected: the response has the reasons, and the old bundle stays live.
        """
        return await executor.run(partial(reload, live_bundle, str(bundles.folder)))

    @router.post(
        "/rollback",
        summary="Roll back to the bundle before or to a given version",
        response_description="The live bundle",
        responses=problem_responses(401, 404, 409, 408, 413, 422, 503),
    )
    async def roll_back_now(body: RollbackRequest) -> RollbackResponse:
        """Make the bundle that was current before, or the given version, current.

        A second call goes further back; to undo one, name the version that it `replaced`. The
        bundle is opened first: one that is rejected does not become current.
        """
        return await executor.run(partial(roll_back, live_bundle, bundles, body.version))


def reload(
    live_bundle: BundleWatcher, folder: str, timeout_s: float = RELOAD_TIMEOUT_S
) -> ReloadResponse:
    """Poll `current`, open the bundle that it names, and return what is live.

    This may take seconds: call it outside the event loop, as `roll_back`.

    Raises:
        RejectedBundleError: the bundle was rejected and an older one stays live.
        NoBundleError: no bundle is live.
        BundleError: the timeout expired.
    """
    if not live_bundle.poll_now(timeout_s):
        raise BundleError(
            f"{folder}: the current bundle was not opened within {timeout_s:g} s and may still "
            "be loading; check GET /readyz, then retry"
        )
    readiness = live_bundle.readiness()
    reasons = readiness.get("reasons", [])
    version = readiness.get("bundle")
    if version is None:
        raise NoBundleError(f"{folder}: no bundle is live: {'; '.join(reasons)}")
    if reasons:
        raise RejectedBundleError(f"{folder}: {version} stays live", reasons)
    return {"status": "ready", "bundle": version}


def roll_back(
    live_bundle: BundleWatcher, bundles: BundleRegistry, version: str | None
) -> RollbackResponse:
    """Make an older bundle current and return once it is live here.

    Without a version it is the one that was current before; a second rollback goes further back.
    A bundle that cannot be opened does not become current: starting replicas would have none.

    Raises:
        UnknownVersionError: the version is not published.
        RejectedBundleError: the bundle is invalid.
        ReadOnlyBundlesError: the folder is read-only.
        BundleError: the pointer cannot be written, or the bundle is not live in time.
    """
    target = version or bundles.previous_version()
    try:
        open_bundle(bundles.path_of(target))
    except InvalidBundleError as error:
        raise RejectedBundleError(f"{error.location}: not made current", error.faults) from error
    replaced = bundles.current_version()
    pointer = move_pointer(bundles, target)
    live = reload(live_bundle, str(bundles.folder))
    return {
        "status": "ready",
        "bundle": live["bundle"],
        "replaced": replaced,
        "previous": pointer.previous,
        "sequence": pointer.sequence,
    }


def move_pointer(bundles: BundleRegistry, version: str) -> BundlePointer:
    """Roll back the pointer to a version.

    Raises:
        ReadOnlyBundlesError: the folder is read-only; the message names the command to run.
        BundleError: the pointer cannot be written.
    """
    try:
        return bundles.roll_back(version)
    except OSError as error:
        reason = f"{bundles.folder}: {error.strerror or error} ({error.filename or 'no file'})"
        if error.errno in READ_ONLY:
            raise ReadOnlyBundlesError(
                f"{reason}; expected write permission; run `python -m index rollback "
                f"{bundles.folder} {version}` where the folder is writable: this service follows"
            ) from error
        raise BundleError(
            f"{reason}; expected to write `current`; free disk space, then retry"
        ) from error


def add_cluster_routes(
    router: APIRouter, maps: ClusterMapRegistry, executor: BoundedExecutor
) -> None:
    """Add the cluster map route; the executor accesses the store."""

    @router.put(
        "/clusters/current",
        summary="Pin, unpin or roll back the current cluster map",
        response_description="The current cluster map",
        responses=problem_responses(401, 404, 408, 413, 422, 503),
    )
    async def move_cluster_pointer_now(body: PointerRequest) -> ClusterPointerResponse:
        """Change which stored cluster map is current; services and training runs follow.

        A second rollback without a version returns to the original map.
        """
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                pointer = await executor.run(partial(move_cluster_pointer, maps, body))
        except TimeoutError as error:
            raise StoreUnreachableError(
                f"{maps.location}: no response within {STORE_TIMEOUT_S:g} s; the change may still "
                "take effect; check GET /clusters, then retry"
            ) from error
        return {
            "sequence": pointer.sequence,
            "version": pointer.version,
            "previous": pointer.previous,
            "is_pinned": pointer.pinned,
        }


def move_cluster_pointer(maps: ClusterMapRegistry, body: PointerRequest) -> ClusterPointer:
    """Pin, unpin or roll back."""
    if body.action == "pin":
        return maps.pin(body.version)
    if body.action == "unpin":
        return maps.unpin()
    return maps.roll_back(body.version)


def add_denylist_routes(
    router: APIRouter,
    live_bundle: BundleWatcher,
    watcher: DenylistWatcher,
    store: DenylistStore,
    executor: BoundedExecutor,
) -> None:
    """Add the denylist route; the executor writes to the store.

    Args:
        store: that of the watcher, with its own client: the watcher's may be polling.
    """

    @router.put(
        "/denylist",
        summary="Replace or update the denylist",
        response_description="The denylist in force",
        responses=problem_responses(401, 408, 409, 413, 422, 503),
    )
    async def update_now(body: DenylistRequest) -> DenylistResponse:
        """Send `items` to replace the whole denylist, or `add` and `remove` to change it.

        Returns once the list is in force in this process; replicas follow within seconds.
        """
        return await executor.run(partial(update_denylist, live_bundle, watcher, store, body))


def update_denylist(
    live_bundle: BundleWatcher,
    watcher: DenylistWatcher,
    store: DenylistStore,
    body: DenylistRequest,
) -> DenylistResponse:
    """Write the denylist and wait until it is in force in this process.

    Raises:
        ClusterStoreError: the store failed, or the denylist is stored but not in force yet.
    """
    written = write_denylist(watcher.value, store, body)
    watcher.poll_now(DENYLIST_TIMEOUT_S)
    if not watcher.is_active(written.sequence):
        raise StoreUnreachableError(
            f"{store.location}: denylist {written.sequence} is stored, but not in force here after "
            f"{DENYLIST_TIMEOUT_S:g} s; GET /readyz shows the reason and when it is"
        )
    denied = body.add if body.items is None else body.items
    return {
        "sequence": written.sequence,
        "count": len(written.ids),
        "unknown_items": live_bundle.list_unknown_ids(denied),
    }


def write_denylist(
    current: Denylist | None, store: DenylistStore, body: DenylistRequest
) -> Denylist:
    """Apply a request to the store, which is repopulated first if it lost the current list."""
    now_s = max(time.time(), (current.sequence + 1) / 1_000 if current else 0)
    if body.items is not None:
        return store.replace(body.items, now_s)
    if current:
        store.repopulate(current)
    return store.update(body.add, body.remove, now_s)
