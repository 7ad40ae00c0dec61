"""What is asked and answered about vectors, as the callers see it; else as `schemas`."""

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from index.search.query import Fallback
from service.schemas.shared import Id, Ids, RequestModel

MOST_EMBEDDED = 256
LARGEST = 1e15  # of a float32: squares must not overflow where lengths are measured

Number = Annotated[float, Field(allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
Numbers = Annotated[list[Number], Field(fail_fast=True)]
Features = dict[str, Numbers | None]


class UserToEmbed(RequestModel):
    """One user; the history is found as for `/retrieve`."""

    user_id: Id | None = Field(
        default=None, description="whose stored history to use where `history` is absent"
    )
    history: Ids | None = Field(
        default=None, description="item ids, oldest first; replaces the stored history"
    )


class EmbedRequest(RequestModel):
    """Either users or items; never both at once."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["users"]}, {"required": ["items"]}],
            "examples": [{"users": [{"history": ["sku-00042"]}, {"user_id": "user-00003"}]}],
        }
    )

    # an absent list is empty, an empty one is refused
    users: Annotated[list[UserToEmbed], Field(min_length=1, max_length=MOST_EMBEDDED)] = Field(
        default_factory=list, description="whose queries to tell"
    )
    items: Annotated[list[Features], Field(min_length=1, max_length=MOST_EMBEDDED)] = Field(
        default_factory=list,
        description="raw features of items, known to the bundle or not: modality -> its "
        "numbers; one that is null, left out or all zero counts as missing",
    )

    @model_validator(mode="after")
    def refuse_both_and_neither(self) -> "EmbedRequest":
        """One answer holds vectors of one kind."""
        if bool(self.users) == bool(self.items):
            raise PydanticCustomError(
                "one_of", "exactly one of `users` and `items`; send each in a call of its own"
            )
        return self


class EmbedResponse(TypedDict):
    """A vector for each user or item, in the order asked."""

    bundle: Annotated[str, Field(description="whose vectors these are: of no use beside another's")]
    vectors: Annotated[
        list[list[float] | None],
        Field(description="unit vectors; null where nothing is known to make one of"),
    ]
    fallbacks: NotRequired[
        Annotated[
            list[Fallback | Literal["no_features"] | None],
            Field(description="where any is null: why, for each; null where there is a vector"),
        ]
    ]
    unknown_items: NotRequired[
        Annotated[
            list[list[str]],
            Field(description="where there are any: of each user's history, what is unknown"),
        ]
    ]
