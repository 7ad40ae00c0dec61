"""How the pointer to the current cluster map moves; the same for every store.

Numbers in, pointers out: who writes them, and that nobody moved it meanwhile, is the store's.
"""

import re
from collections.abc import Sequence

from pydantic import ValidationError

from index.clusters.store import VERSION_PATTERN, ClusterPointer
from index.errors import FaultyClusterMapError, NoClusterMapError


def after_publish(before: ClusterPointer | None, version: str, now_s: float) -> ClusterPointer:
    """Return the pointer once a version is published; a pin on another one stays."""
    if before and before.pinned and before.version != version:
        return before
    return moved(before, version, now_s, pinned=before is not None and before.pinned)


def after_roll_back(
    before: ClusterPointer | None, version: str | None, place: str, now_s: float
) -> ClusterPointer:
    """Return the pointer once rolled back, to the version before or to the one named."""
    pinned = before is not None and before.pinned
    wanted = before.previous if before and version is None else _checked(version, place)
    if wanted is None:
        raise NoClusterMapError(
            f"{place}: there is no cluster map before the current one; name the version that "
            "shall become current (`python -m index clusters list` tells them)"
        )
    return moved(before, wanted, now_s, pinned=pinned)


def after_pin(
    before: ClusterPointer | None, version: str | None, place: str, now_s: float
) -> ClusterPointer:
    """Return the pointer once a version is pinned, or the current one."""
    wanted = before.version if before and version is None else _checked(version, place)
    if wanted is None:
        raise nothing_published(place)
    return moved(before, wanted, now_s, pinned=True)


def after_unpin(before: ClusterPointer | None, place: str, now_s: float) -> ClusterPointer:
    """Return the pointer once nothing is pinned."""
    if before is None:
        raise nothing_published(place)
    return moved(before, before.version, now_s, pinned=False) if before.pinned else before


def moved(
    before: ClusterPointer | None, version: str, now_s: float, *, pinned: bool
) -> ClusterPointer:
    """Point at a version, and remember the one before."""
    sequence = int(now_s * 1_000)
    if before is None:
        return ClusterPointer(sequence=sequence, version=version, previous=None, pinned=pinned)
    is_same = before.version == version
    return ClusterPointer(
        sequence=max(before.sequence + 1, sequence),
        version=version,
        previous=before.previous if is_same else before.version,
        pinned=pinned,
    )


def is_needed(before: ClusterPointer | None, seed: ClusterPointer) -> bool:
    """Return whether a store has fallen behind a pointer that was once its own."""
    return before is None or before.sequence < seed.sequence


def parse_pointer(found: bytes, place: str) -> ClusterPointer:
    """Read a pointer; raises FaultyClusterMapError if it is none."""
    try:
        return ClusterPointer.model_validate_json(found)
    except ValidationError as error:
        raise FaultyClusterMapError(
            place,
            [
                "`current` cannot be read as a pointer; expected json with sequence, version, "
                "previous and pinned; repair it by publishing a map, or with "
                "`python -m index clusters rollback`, naming a version"
            ],
        ) from error


def _checked(version: str | None, place: str) -> str | None:
    """Return a version that a person named; raises NoClusterMapError if it can be none."""
    if version is None or re.fullmatch(VERSION_PATTERN, version):
        return version
    raise NoClusterMapError(
        f"{place}: found {version!r}, expected the version of a cluster map, 16 digits of 0-9 "
        "and a-f; `python -m index clusters list` tells them"
    )


def nothing_published(place: str) -> NoClusterMapError:
    """Say that a store is empty, and what to do."""
    return NoClusterMapError(
        f"{place}: no cluster map is published here; publish one with "
        "`python -m trainer clusters --publish`"
    )


def not_there(
    place: str, version: str, there: Sequence[str] | None = None
) -> NoClusterMapError:
    """Say that a version is not stored (or no longer), and which ones are, if that is known."""
    held = (
        "`python -m index clusters list` tells what it holds"
        if there is None
        else f"it holds {', '.join(there) or 'none'}"
    )
    return NoClusterMapError(
        f"{place}: holds no cluster map {version!r} (never published, or expired); {held}"
    )
