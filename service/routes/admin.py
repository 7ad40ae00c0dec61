"""The operator's calls, behind the bearer token: bundles, cluster maps and denied items."""

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
from service.routing import problems
from service.schemas.admin import (
    ClusterPointerResponse,
    DenylistRequest,
    DenylistResponse,
    PointerRequest,
    ReloadResponse,
    RollbackRequest,
    RollbackResponse,
)

RELOAD_S = 60.0  # a bundle of a million items opens in two; a slow volume may take longer
IN_FORCE_S = 30.0  # a store answers within a second
STORE_S = 5.0  # the store's own limits are shorter; this one holds whatever it does


def add_bundle_routes(
    router: APIRouter,
    live_bundle: BundleWatcher,
    bundles: BundleRegistry,
    executor: BoundedExecutor,
) -> None:
    """Add the routes about bundles; opening and moving happen beside the event loop."""

    @router.post(
        "/reload",
        summary="Look at what is current now, and answer once it is live or refused",
        response_description="What is live",
        responses=problems(401, 409, 503),
    )
    async def reload_now() -> ReloadResponse:
        return await executor.run(partial(reload, live_bundle, str(bundles.folder)))

    @router.post(
        "/rollback",
        summary="Make the bundle before the current one current, or the one named",
        response_description="What is live",
        responses=problems(401, 404, 409, 408, 413, 422, 503),
    )
    async def roll_back_now(asked: RollbackRequest) -> RollbackResponse:
        return await executor.run(partial(roll_back, live_bundle, bundles, asked.version))


def reload(live_bundle: BundleWatcher, place: str, timeout_s: float = RELOAD_S) -> ReloadResponse:
    """Look at `current` now, open what it names, and tell what is live then.

    It may take seconds, so it is called beside the event loop, as `roll_back` is.

    Raises RejectedBundleError with the reasons if an older bundle serves on, NoBundleError if
    none does, BundleError if the time was too short.
    """
    if not live_bundle.poll_now(timeout_s):
        raise BundleError(
            f"{place}: what is current was not opened within {timeout_s:g} s, but may still "
            "be; see what GET /readyz tells, then try again"
        )
    told = live_bundle.readiness()
    reasons = told.get("reasons", [])
    version = told.get("bundle")
    if version is None:
        raise NoBundleError(f"{place}: no bundle is live: {'; '.join(reasons)}")
    if reasons:
        raise RejectedBundleError(f"{place}, where {version} serves on", reasons)
    return {"status": "ready", "bundle": version}


def roll_back(
    live_bundle: BundleWatcher, bundles: BundleRegistry, version: str | None
) -> RollbackResponse:
    """Make an older bundle current, and return once it answers here.

    One that cannot be opened is not made current: replicas that start would have nothing.

    Raises UnknownVersionError, RejectedBundleError, ReadOnlyBundlesError, BundleError.
    """
    wanted = version or bundles.previous_version()
    try:
        open_bundle(bundles.path_of(wanted))
    except InvalidBundleError as error:
        told = f"{error.location}, which was not made current"
        raise RejectedBundleError(told, error.faults) from error
    pointer = move_pointer(bundles, wanted)
    live = reload(live_bundle, str(bundles.folder))
    return {
        "status": "ready",
        "bundle": live["bundle"],
        "previous": pointer.previous,
        "sequence": pointer.sequence,
    }


def move_pointer(bundles: BundleRegistry, version: str) -> BundlePointer:
    """Roll back to a version.

    Raises ReadOnlyBundlesError with the command to use elsewhere, else BundleError.
    """
    try:
        return bundles.roll_back(version)
    except OSError as error:
        told = f"{bundles.folder}: {error.strerror or error} ({error.filename or 'no file'})"
        if error.errno in READ_ONLY:
            raise ReadOnlyBundlesError(
                f"{told}; expected the right to write there; where the folder may be written, "
                f"run `python -m index rollback {bundles.folder} {version}`: this service "
                "follows"
            ) from error
        raise BundleError(f"{told}; expected to write `current`; make room, try again") from error


def add_cluster_routes(
    router: APIRouter, maps: ClusterMapRegistry, executor: BoundedExecutor
) -> None:
    """Add the route about cluster maps; the store is asked beside the event loop."""

    @router.put(
        "/clusters/current",
        summary="Pin, unpin or roll back the current cluster map",
        response_description="What is current now",
        responses=problems(401, 404, 408, 413, 422, 503),
    )
    async def point(asked: PointerRequest) -> ClusterPointerResponse:
        try:
            async with asyncio.timeout(STORE_S):
                pointer = await executor.run(partial(point_to, maps, asked))
        except TimeoutError as error:
            raise StoreUnreachableError(
                f"{maps.place}: did not answer within {STORE_S:g} s, but may still do so; see "
                "what GET /clusters tells, then try again"
            ) from error
        return {
            "sequence": pointer.sequence,
            "version": pointer.version,
            "previous": pointer.previous,
            "is_pinned": pointer.pinned,
        }


def point_to(maps: ClusterMapRegistry, asked: PointerRequest) -> ClusterPointer:
    """Do what was asked for."""
    if asked.action == "pin":
        return maps.pin(asked.version)
    if asked.action == "unpin":
        return maps.unpin()
    return maps.roll_back(asked.version)


def add_deny_routes(
    router: APIRouter,
    live_bundle: BundleWatcher,
    deny: DenylistWatcher,
    store: DenylistStore,
    executor: BoundedExecutor,
) -> None:
    """Add the route about denied items; the store is written beside the event loop.

    Args:
        store: the watcher's, with a client of its own: the other may be in the middle of a poll.
    """

    @router.put(
        "/denylist",
        summary="Replace or change the list of items that are never returned",
        response_description="The list in force",
        responses=problems(401, 408, 409, 413, 422, 503),
    )
    async def change_now(asked: DenylistRequest) -> DenylistResponse:
        return await executor.run(partial(change_denied, live_bundle, deny, store, asked))


def change_denied(
    live_bundle: BundleWatcher, deny: DenylistWatcher, store: DenylistStore, asked: DenylistRequest
) -> DenylistResponse:
    """Write the list, and wait until it is in force in this process.

    Raises what the store raises; StoreUnreachableError if it is stored, but not in force yet.
    """
    changed = write_denied(deny.value, store, asked)
    deny.poll_now(IN_FORCE_S)
    if not deny.is_in_force(changed.sequence):
        raise StoreUnreachableError(
            f"{store.place}: the list {changed.sequence} is stored, but not in force here "
            f"after {IN_FORCE_S:g} s; GET /readyz tells why and when it is"
        )
    wanted = asked.add if asked.items is None else asked.items
    return {
        "sequence": changed.sequence,
        "count": len(changed.ids),
        "unknown_items": live_bundle.list_unknown_ids(wanted),
    }


def write_denied(held: Denylist | None, store: DenylistStore, asked: DenylistRequest) -> Denylist:
    """Write what was asked for into the store, which may have lost the list that is held."""
    now_s = max(time.time(), (held.sequence + 1) / 1_000 if held else 0)
    if asked.items is not None:
        return store.replace(asked.items, now_s)
    if held:
        store.repopulate(held)
    return store.change(asked.add, asked.remove, now_s)
