"""What the operator asks and is answered: about bundles, cluster maps and denied items."""

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
    """Which bundle is to be current?"""

    model_config = example()

    version: Annotated[str, Field(pattern=VERSION_PATTERN)] | None = Field(
        default=None, description="which one; without it, the one before the current one"
    )


class ReloadResponse(TypedDict):
    """What is live once `current` has been looked at."""

    status: Literal["ready"]
    bundle: Annotated[str, Field(description="the version that answers now")]
    reasons: NotRequired[list[str]]


class RollbackResponse(TypedDict):
    """What `current` says now; this service follows it already, replicas within seconds."""

    status: Literal["ready"]
    bundle: Annotated[str, Field(description="the version that answers now")]
    previous: Annotated[str | None, Field(description="where a rollback would lead next")]
    sequence: int


class PointerRequest(RequestModel):
    """Which map is to be current?"""

    model_config = example(action="rollback")

    action: Literal["pin", "unpin", "rollback"] = Field(
        description="pin: make a version current (without one: stay with the current) until it "
        "is unpinned; unpin: let what is published next become current; rollback: to the "
        "version before, or to the one named"
    )
    version: MapVersion | None = Field(default=None, description="16 hex digits; not for unpin")

    @field_validator("version")
    @classmethod
    def refuse_a_version_to_unpin(cls, version: str | None, info: ValidationInfo) -> str | None:
        """A version given to `unpin` would be passed over in silence."""
        if version is not None and info.data.get("action") == "unpin":
            raise PydanticCustomError("no_version", "no version is taken here; remove it")
        return version


class ClusterPointerResponse(TypedDict):
    """What the store says is current now; replicas follow within seconds."""

    sequence: int
    version: str
    previous: str | None
    is_pinned: bool


class DenylistRequest(RequestModel):
    """Which items are never to be returned? Either all of them, or what changes."""

    model_config = example(add=["sku-00042"])

    items: DeniedIds | None = Field(default=None, description="these, and no others")
    add: DeniedIds = Field(default=[], description="these, too")
    remove: DeniedIds = Field(default=[], description="these no longer; it comes after `add`")

    @model_validator(mode="after")
    def want_one_way(self) -> "DenylistRequest":
        """Refuse a body that says both, or nothing."""
        if (self.items is None) == (not self.add and not self.remove):
            raise PydanticCustomError(
                "one_way", "give either items, or add and remove, one of them at least"
            )
        return self


class DenylistResponse(TypedDict):
    """The list that is in force in this process now; replicas follow within seconds."""

    sequence: int
    count: Annotated[int, Field(description="ids on the list")]
    unknown_items: Annotated[
        list[str],
        Field(
            description="of those asked to be denied, the ones that the live bundle lacks; "
            "they are on the list all the same"
        ),
    ]
