"""What is asked and what is answered, as the callers see it.

Questions are models, checked on arrival. Answers are typed dicts: written as they are, so that
a key with nothing to say is absent, and described by the same types in /openapi.json.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import core_schema
from typing_extensions import TypedDict

from index.manifest import Manifest
from index.retriever import Fallback

ID_LENGTH = 512
LIST_LENGTH = 10_000
MAX_COUNT, DEFAULT_COUNT = 1_000, 100


class _TextOrInteger:
    """Checks an id inside pydantic's core: text stays, an integer becomes its decimals."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls,
        source: type,
        handler: GetCoreSchemaHandler,
    ) -> core_schema.CoreSchema:
        text = core_schema.str_schema(strict=True, min_length=1, max_length=ID_LENGTH)
        integer = core_schema.int_schema(strict=True, ge=-(2**63), lt=2**64)
        return core_schema.union_schema(
            [text, core_schema.no_info_after_validator_function(str, integer)],
            mode="left_to_right",
            custom_error_type="id",
            custom_error_message=f"an id is text of 1 to {ID_LENGTH} characters or an integer "
            "of 64 bits; write others as text",
        )


Source = Literal["redis", "folder", "bundle"]
Id = Annotated[str, _TextOrInteger]
Ids = Annotated[list[Id], Field(max_length=LIST_LENGTH)]


class RetrieveRequest(BaseModel):
    """One user's question. Without any history the popular items are the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    user_id: Id | None = Field(
        default=None, description="whose stored history to use where `history` is absent"
    )
    history: Ids | None = Field(
        default=None,
        description="item ids, oldest first; replaces the stored history, for the query "
        "and for what counts as seen",
    )
    k: int = Field(
        default=DEFAULT_COUNT,
        ge=1,
        le=MAX_COUNT,
        description="how many candidates; fewer come only where fewer are eligible",
    )
    exclude: Ids = Field(default=[], description="item ids never to return")
    exclude_seen: bool = Field(
        default=True, description="whether the items of the whole history are excluded too"
    )
    include: Annotated[list[Literal["clusters"]], Field(max_length=8)] = Field(
        default=[], description="what to tell of each candidate besides its score"
    )


class Candidate(TypedDict):
    """An item and its score."""

    item_id: str
    score: Annotated[
        float | None,
        Field(
            description="inner product with the query; null where popular items are returned"
        ),
    ]
    cluster: NotRequired[
        Annotated[
            tuple[int, int] | None,
            Field(
                description="where asked for: its level-1 and level-2 code in the map named by "
                "`clusters`; null where that map lacks it, or there is none"
            ),
        ]
    ]


class RetrieveAnswer(TypedDict):
    """Candidates, best first."""

    bundle: Annotated[str, Field(description="the version of the bundle that answered")]
    candidates: list[Candidate]
    clusters: NotRequired[
        Annotated[str, Field(description="the version of the map that told the clusters")]
    ]
    fallback: NotRequired[
        Annotated[Fallback, Field(description="why popular items are returned, if they are")]
    ]
    unknown_items: NotRequired[
        Annotated[list[str], Field(description="ids of the history that the bundle lacks")]
    ]


class Alive(TypedDict):
    """The process answers."""

    status: Literal["alive"]


class FollowerAnswer(TypedDict):
    """How the following of cluster maps goes; in trouble the last good map stays in use."""

    status: Annotated[
        Literal["following", "unreachable", "refused", "empty", "stopped"],
        Field(
            description="none of them makes the service less ready: `/retrieve` needs no map"
        ),
    ]
    version: NotRequired[Annotated[str, Field(description="of the map in use")]]
    source: NotRequired[Annotated[Source, Field(description="where that map is from")]]
    reasons: NotRequired[list[str]]


class Readiness(TypedDict):
    """Whether a bundle is live; what is wrong, even where an older one serves on."""

    status: Literal["ready", "loading", "no bundle", "refused", "stopped"]
    bundle: NotRequired[str]
    reasons: NotRequired[list[str]]
    clusters: NotRequired[FollowerAnswer]


class BundleAnswer(TypedDict):
    """The live bundle: its version and its manifest."""

    version: str
    manifest: Manifest


class Fault(TypedDict):
    """One thing wrong with a body."""

    place: Annotated[str, Field(description="the way to it, as in history.3")]
    found: str
    expected: str


class Problem(TypedDict):
    """What went wrong (RFC 9457)."""

    type: Annotated[str, Field(description="which kind; about:blank where the status says it")]
    title: str
    status: int
    detail: str
    instance: Annotated[str, Field(description="the path that was asked")]
    request_id: Annotated[str, Field(description="as in X-Request-ID and in the logs")]
    errors: NotRequired[Annotated[list[Fault], Field(description="of a body, with 422")]]
    reasons: NotRequired[
        Annotated[list[str], Field(description="of a bundle that was refused, with 409")]
    ]
