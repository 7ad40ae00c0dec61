"""What is answered about the service itself, as operators see it; else as `schemas`."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from index.bundle.manifest import Manifest
from service.schemas.shared import Source


class Alive(TypedDict):
    """The process answers."""

    status: Literal["alive"]


WatchStatus = Literal["following", "unreachable", "refused", "empty", "stopped"]


class FollowerAnswer(TypedDict):
    """How the following of cluster maps goes; in trouble the last good map stays in use."""

    status: Annotated[
        WatchStatus,
        Field(description="none of them makes the service less ready: `/retrieve` needs no map"),
    ]
    version: NotRequired[Annotated[str, Field(description="of the map in use")]]
    source: NotRequired[Annotated[Source, Field(description="where that map is from")]]
    reasons: NotRequired[list[str]]


class DenyAnswer(TypedDict):
    """How the following of the deny list goes; in trouble the last good list stays in force."""

    status: Annotated[WatchStatus, Field(description="none of them makes the service less ready")]
    sequence: NotRequired[Annotated[int, Field(description="of the list in force")]]
    count: NotRequired[Annotated[int, Field(description="ids on the list in force")]]
    reasons: NotRequired[list[str]]


class Readiness(TypedDict):
    """Whether a bundle is live; what is wrong, even where an older one serves on."""

    status: Literal["ready", "loading", "no bundle", "refused", "stopped", "draining"]
    bundle: NotRequired[str]
    reasons: NotRequired[list[str]]
    clusters: NotRequired[FollowerAnswer]
    deny: NotRequired[DenyAnswer]


class BundleAnswer(TypedDict):
    """The live bundle: its version and its manifest."""

    version: str
    manifest: Manifest
