"""Schemas of the admin endpoints: bundles, cluster maps and denylist."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from index.bundle.manifest import VERSION_PATTERN
from index.denylist import MAX_ITEMS
from service.schemas.shared import Id, RequestModel, example

MapVersion = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
DeniedIds = Annotated[list[Id], Field(max_length=MAX_ITEMS, fail_fast=True)]


class RollbackRequest(RequestModel):
    """Selects the bundle to roll back to."""

    model_config = example()

    version: Annotated[str, Field(pattern=VERSION_PATTERN)] | None = None
    """Bundle version; by default, the one that was current before."""


class ReloadResponse(TypedDict):
    """The live bundle after a reload."""

    status: Literal["ready"]
    bundle: Annotated[str, Field(description="Version of the live bundle.")]
    reasons: NotRequired[list[str]]


class RollbackResponse(TypedDict):
    """The bundle pointer after a rollback; live here already, on replicas within seconds."""

    status: Literal["ready"]
    bundle: Annotated[str, Field(description="Version of the live bundle.")]
    replaced: Annotated[
        str | None, Field(description="Version that was current until now; name it to undo this.")
    ]
    previous: Annotated[
        str | None,
        Field(description="Version that another rollback leads to; null if there is none."),
    ]
    sequence: int


class PointerRequest(RequestModel):
    """Change of the current cluster map."""

    model_config = example(action="rollback")

    action: Literal["pin", "unpin", "rollback"]
    """`pin` keeps a version current until it is unpinned (by default, the current one); `unpin`
    lets the next published version become current; `rollback` returns to the previous version
    or to the given one."""
    version: MapVersion | None = None
    """Map version, 16 hex digits; not allowed with `unpin`."""

    @field_validator("version")
    @classmethod
    def validate_version(cls, version: str | None, info: ValidationInfo) -> str | None:
        """Reject a version with `unpin`, which would ignore it."""
        if version is not None and info.data.get("action") == "unpin":
            raise PydanticCustomError("no_version", "`unpin` accepts no version; remove it")
        return version


class ClusterPointerResponse(TypedDict):
    """The cluster map pointer in the store; replicas follow within seconds."""

    sequence: int
    version: str
    previous: str | None
    is_pinned: bool


class DenylistRequest(RequestModel):
    """New denylist: either all of its items, or changes to it."""

    model_config = example(
        add=["id-to-deny"]
    )  # not one of a live item: trying it out must do no harm

    items: DeniedIds | None = None
    """Replaces the whole denylist."""
    add: DeniedIds = Field(default=[])
    """Items to add."""
    remove: DeniedIds = Field(default=[])
    """Items to remove, applied after `add`."""

    @model_validator(mode="after")
    def validate_mode(self) -> "DenylistRequest":
        """Require either a replacement or changes."""
        if (self.items is None) == (not self.add and not self.remove):
            raise PydanticCustomError(
                "one_way", "either `items`, or at least one of `add` and `remove`"
            )
        return self


class DenylistResponse(TypedDict):
    """The denylist in force in this process; replicas follow within seconds."""

    sequence: int
    count: Annotated[int, Field(description="Number of denied ids.")]
    unknown_items: Annotated[
        list[str],
        Field(
            description="Ids of the request that the live bundle lacks; they are on the denylist "
            "nevertheless."
        ),
    ]
