"""What the operator asks and is answered about denied items."""

from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from index.denylist import MAX_ITEMS
from service.schemas.shared import Asked, Id, example

DeniedIds = Annotated[list[Id], Field(max_length=MAX_ITEMS, fail_fast=True)]


class DenyRequest(Asked):
    """Which items are never to be returned? Either all of them, or what changes."""

    model_config = example(add=["sku-00042"])

    items: DeniedIds | None = Field(default=None, description="these, and no others")
    add: DeniedIds = Field(default=[], description="these, too")
    remove: DeniedIds = Field(default=[], description="these no longer; it comes after `add`")

    @model_validator(mode="after")
    def want_one_way(self) -> "DenyRequest":
        """Refuse a body that says both, or nothing."""
        if (self.items is None) == (not self.add and not self.remove):
            raise PydanticCustomError(
                "one_way", "give either items, or add and remove, one of them at least"
            )
        return self


class DenyChangeAnswer(TypedDict):
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
