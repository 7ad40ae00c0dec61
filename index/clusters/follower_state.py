"""How the following of a store of cluster maps goes, and what an error makes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from index.errors import (
    ClusterStoreError,
    EsansError,
    FaultsError,
    ForeignClusterMapError,
    NoClusterMapError,
    ReadOnlyStoreError,
    StoreFullError,
)

NOT_ASKED = "not asked yet"  # the reason before the first look

Status = Literal["following", "unreachable", "refused", "empty", "stopped"]


@dataclass(frozen=True)
class FollowerState:
    """How the following goes.

    version, sequence  of the map that is held; no sequence where it is our own
    since              unix seconds of the last change of `status`
    swaps, errors      counted since the start; errors at every look that failed
    refusals           maps turned down, each told and counted once
    """

    status: Status
    reasons: tuple[str, ...]
    version: str | None
    sequence: int | None
    since: float
    swaps: int
    errors: int
    refusals: int = 0


class News(NamedTuple):
    """What a step of the following found; `trouble` where nobody had thought of it."""

    status: Status
    reasons: tuple[str, ...]
    errors: int = 0
    trouble: Exception | None = None


def news_of(step: Callable[[], News]) -> News:
    """Take a step; whatever happens in it is told, not raised."""
    try:
        return step()
    except EsansError as error:
        return News(status_of(error), reasons_of(error), errors=1)
    except Exception as error:  # a map or a callback unlike any thought of: say so, poll on
        return News("refused", (f"{type(error).__name__}: {error}",), 1, error)


def status_of(error: EsansError) -> Status:
    """Say what an error makes of the following."""
    if isinstance(error, StoreFullError | ReadOnlyStoreError):
        return "empty"  # only who puts a map back into an empty store meets it
    if isinstance(error, NoClusterMapError | ForeignClusterMapError):
        return "refused"
    return "unreachable" if isinstance(error, ClusterStoreError) else "refused"


def reasons_of(error: EsansError) -> tuple[str, ...]:
    """Say why, a reason a fault."""
    if isinstance(error, FaultsError):
        return tuple(f"{error.place}: {fault}" for fault in error.faults)
    return (str(error),)
