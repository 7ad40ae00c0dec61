"""The operator's calls about bundles: look now, roll back; behind the bearer token."""

from functools import partial

from fastapi import APIRouter

from index.bundle.reader import open_bundle
from index.bundle.registry import BundlePointer, BundleRegistry
from index.errors import (
    BundleError,
    FaultyBundleError,
    NoBundleError,
    ReadOnlyBundlesError,
    RefusedBundleError,
)
from index.storage.local import READ_ONLY
from service.executor import BoundedExecutor
from service.openapi import problems
from service.routing import admin_router
from service.schemas.bundle import ReloadAnswer, RollbackAnswer, RollbackRequest
from service.state.bundle_watcher import LiveBundle

RELOAD_S = 60.0  # a bundle of a million items opens in two; a slow volume may take longer


def bundle_admin_routes(
    live_bundle: LiveBundle, shelf: BundleRegistry, token: str, executor: BoundedExecutor
) -> APIRouter:
    """Return the routes; opening and moving happen beside the event loop."""
    router = admin_router(token)

    @router.post(
        "/reload",
        summary="Look at what is current now, and answer once it is live or refused",
        response_description="What is live",
        responses=problems(401, 409, 503),
    )
    async def reload_now() -> ReloadAnswer:
        return await executor.run(partial(reload, live_bundle, str(shelf.folder)))

    @router.post(
        "/rollback",
        summary="Make the bundle before the current one current, or the one named",
        response_description="What is live",
        responses=problems(401, 404, 409, 408, 413, 422, 503),
    )
    async def roll_back_now(asked: RollbackRequest) -> RollbackAnswer:
        return await executor.run(partial(roll_back, live_bundle, shelf, asked.version))

    return router


def reload(live_bundle: LiveBundle, place: str, timeout_s: float = RELOAD_S) -> ReloadAnswer:
    """Look at `current` now, open what it names, and tell what is live then.

    It may take seconds, so it is called beside the event loop, as `roll_back` is.

    Raises RefusedBundleError with the reasons if an older bundle serves on, NoBundleError if
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
        raise RefusedBundleError(f"{place}, where {version} serves on", reasons)
    return {"status": "ready", "bundle": version}


def roll_back(
    live_bundle: LiveBundle, bundles: BundleRegistry, version: str | None
) -> RollbackAnswer:
    """Make an older bundle current, and return once it answers here.

    One that cannot be opened is not made current: replicas that start would have nothing.

    Raises UnknownVersionError, RefusedBundleError, ReadOnlyBundlesError, BundleError.
    """
    wanted = version or bundles.before()
    try:
        open_bundle(bundles.path_of(wanted))
    except FaultyBundleError as error:
        told = f"{error.place}, which was not made current"
        raise RefusedBundleError(told, error.faults) from error
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
