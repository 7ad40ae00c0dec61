"""Schemas of the state endpoints: liveness, readiness and the live bundle."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from index.bundle.manifest import Manifest
from service.schemas.shared import Source


class Alive(TypedDict):
    """The process is alive."""

    status: Literal["alive"]


WatchStatus = Literal["following", "unreachable", "rejected", "empty", "stopped"]


class ClusterWatcherStatus(TypedDict):
    """Status of the cluster map watcher; on errors the last valid map stays in use."""

    status: Annotated[
        WatchStatus,
        Field(description="Does not affect readiness: `/retrieve` needs no cluster map."),
    ]
    version: NotRequired[Annotated[str, Field(description="Version of the map in use.")]]
    source: NotRequired[Annotated[Source, Field(description="Source of the map in use.")]]
    reasons: NotRequired[list[str]]


class DenylistStatus(TypedDict):
    """Status of the denylist watcher; on errors the last valid denylist stays in force."""

    status: Annotated[WatchStatus, Field(description="Does not affect readiness.")]
    sequence: NotRequired[Annotated[int, Field(description="Sequence of the denylist in force.")]]
    count: NotRequired[Annotated[int, Field(description="Number of ids on the denylist in force.")]]
    reasons: NotRequired[list[str]]


class Readiness(TypedDict):
    """Whether a bundle is live, with reasons if a bundle is missing or was rejected."""

    status: Literal["ready", "loading", "no bundle", "rejected", "stopped", "draining"]
    bundle: NotRequired[str]
    reasons: NotRequired[list[str]]
    clusters: NotRequired[ClusterWatcherStatus]
    denylist: NotRequired[DenylistStatus]


class BundleResponse(TypedDict):
    """Version and manifest of the live bundle."""

    version: str
    manifest: Manifest
