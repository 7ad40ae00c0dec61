"""Schemas of the embedding endpoint."""

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from index.search.query import Fallback
from service.schemas.shared import Id, Ids, RequestModel

MAX_EMBEDDED = 256
MAX_ABS_VALUE = 1e15  # the squares that a norm sums must not overflow a float32

Number = Annotated[float, Field(allow_inf_nan=False, ge=-MAX_ABS_VALUE, le=MAX_ABS_VALUE)]
Numbers = Annotated[list[Number], Field(fail_fast=True)]
Features = dict[str, Numbers | None]


class UserQuery(RequestModel):
    """A user; the history is resolved as in `/retrieve`."""

    user_id: Id | None = None
    """User whose stored history is used if `history` is absent."""
    history: Ids | None = None
    """Item ids, oldest first; replaces the stored history."""


class EmbedRequest(RequestModel):
    """Either users or items to embed."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["users"]}, {"required": ["items"]}],
            "examples": [{"users": [{"history": ["sku-00042"]}, {"user_id": "user-00003"}]}],
        }
    )

    # an absent list defaults to empty, an explicit empty list is invalid
    users: Annotated[list[UserQuery], Field(min_length=1, max_length=MAX_EMBEDDED)] = Field(
        default_factory=list
    )
    """Users whose query vectors are returned."""
    items: Annotated[list[Features], Field(min_length=1, max_length=MAX_EMBEDDED)] = Field(
        default_factory=list
    )
    """Raw features of items, in the bundle or not, as numbers by modality; a modality that is
    null, absent or all zero counts as missing."""

    @model_validator(mode="after")
    def validate_kind(self) -> "EmbedRequest":
        """Require exactly one of `users` and `items`."""
        if bool(self.users) == bool(self.items):
            raise PydanticCustomError(
                "one_of", "exactly one of `users` and `items`; send separate requests"
            )
        return self


class EmbedResponse(TypedDict):
    """A vector for each user or item, in request order."""

    bundle: Annotated[
        str,
        Field(
            description="Version of the bundle; vectors of different bundles are not comparable."
        ),
    ]
    vectors: Annotated[
        list[list[float] | None],
        Field(description="Unit vectors; null if there is nothing to encode."),
    ]
    fallbacks: NotRequired[
        Annotated[
            list[Fallback | Literal["no_features"] | None],
            Field(description="Present if any vector is null: reasons, null beside a vector."),
        ]
    ]
    unknown_items: NotRequired[
        Annotated[
            list[list[str]],
            Field(description="Present if any: the unknown ids of each user's history."),
        ]
    ]
