"""What is answered about the service itself, as operators see it; else as `schemas`."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from index.bundle.manifest import Manifest
from service.schemas.shared import Source


class Alive(TypedDict):
    """The process answers."""

    status: Literal["alive"]


WatchStatus = Literal["following", "unreachable", "rejected", "empty", "stopped"]


class ClusterWatcherStatus(TypedDict):
    """How the following of cluster maps goes; in trouble the last good map stays in use."""

    status: Annotated[
        WatchStatus,
        Field(description="none of them makes the service less ready: `/retrieve` needs no map"),
    ]
    version: NotRequired[Annotated[str, Field(description="of the map in use")]]
    source: NotRequired[Annotated[Source, Field(description="where that map is from")]]
    reasons: NotRequired[list[str]]


class DenylistStatus(TypedDict):
    """How the following of the denylist goes; in trouble the last good list stays in force."""

    status: Annotated[WatchStatus, Field(description="none of them makes the service less ready")]
    sequence: NotRequired[Annotated[int, Field(description="of the list in force")]]
    count: NotRequired[Annotated[int, Field(description="ids on the list in force")]]
    reasons: NotRequired[list[str]]


class Readiness(TypedDict):
    """Whether a bundle is live; what is wrong, even where an older one serves on."""

    status: Literal["ready", "loading", "no bundle", "rejected", "stopped", "draining"]
    bundle: NotRequired[str]
    reasons: NotRequired[list[str]]
    clusters: NotRequired[ClusterWatcherStatus]
    denylist: NotRequired[DenylistStatus]


class BundleResponse(TypedDict):
    """The live bundle: its version and its manifest."""

    version: str
    manifest: Manifest
