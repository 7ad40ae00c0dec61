"""What the operator does with bundles: look now, roll back; each waits until it is done.

All of it may take seconds, so it is called beside the event loop.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from index.bundle.reader import open_bundle
from index.errors import (
    BundleError,
    FaultyBundleError,
    NoBundleError,
    ReadOnlyBundlesError,
    RefusedBundleError,
)
from index.shelf import Shelf
from service.live.live_bundle import LiveBundle
from service.schemas.bundle import ReloadAnswer, RollbackAnswer

LOOK_S = 60.0  # a bundle of a million items opens in two; a slow volume may take longer
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def reload(live_bundle: LiveBundle, place: str, limit_s: float = LOOK_S) -> ReloadAnswer:
    """Look at `current` now, open what it names, and tell what is live then.

    Raises RefusedBundleError with the reasons if an older bundle serves on, NoBundleError if
    none does, BundleError if the time was too short.
    """
    if not live_bundle.wait_for_a_look(limit_s):
        raise BundleError(
            f"{place}: what is current was not opened within {limit_s:g} s, but may still be; "
            "see what GET /readyz tells, then try again"
        )
    told = live_bundle.readiness()
    reasons = told.get("reasons", [])
    version = told.get("bundle")
    if version is None:
        raise NoBundleError(f"{place}: no bundle is live: {'; '.join(reasons)}")
    if reasons:
        raise RefusedBundleError(f"{place}, where {version} serves on", reasons)
    return {"status": "ready", "bundle": version}


def roll_back(live_bundle: LiveBundle, shelf: Shelf, version: str | None) -> RollbackAnswer:
    """Make an older bundle current, and return once it answers here.

    One that cannot be opened is not made current: replicas that start would have nothing.

    Raises UnknownVersionError, RefusedBundleError, ReadOnlyBundlesError, BundleError.
    """
    wanted = version or shelf.before()
    try:
        open_bundle(shelf.path_of(wanted))
    except FaultyBundleError as error:
        told = f"{error.place}, which was not made current"
        raise RefusedBundleError(told, error.faults) from error
    with naming_faults(shelf, wanted):
        pointer = shelf.roll_back(wanted)
    live = reload(live_bundle, str(shelf.folder))
    return {
        "status": "ready",
        "bundle": live["bundle"],
        "previous": pointer.previous,
        "sequence": pointer.sequence,
    }


@contextmanager
def naming_faults(shelf: Shelf, version: str) -> Iterator[None]:
    """Turn what the file system says into an error of ours.

    Raises ReadOnlyBundlesError with the command to use elsewhere, else BundleError.
    """
    try:
        yield
    except OSError as error:
        told = f"{shelf.folder}: {error.strerror or error} ({error.filename or 'no file'})"
        if error.errno in READ_ONLY:
            raise ReadOnlyBundlesError(
                f"{told}; expected the right to write there; where the folder may be written, "
                f"run `python -m index rollback {shelf.folder} {version}`: this service follows"
            ) from error
        raise BundleError(
            f"{told}; expected to write `current`; make room, try again"
        ) from error
