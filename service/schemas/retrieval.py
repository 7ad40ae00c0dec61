"""What is asked and answered about candidates, as the callers see it; else as `schemas`."""

import re
from typing import Annotated, Literal, NotRequired

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from index.search.query import Fallback
from service.schemas.shared import (
    ID_LENGTH,
    Id,
    Ids,
    RequestModel,
    Value,
    example,
    none_by_default,
)

MAX_COUNT, DEFAULT_COUNT = 1_000, 100
MAX_QUERIES = 256

MOST_ATTRIBUTES, MOST_VALUES = 32, 1_000

Include = Annotated[list[Literal["clusters", "attributes"]], Field(max_length=8)]
Attribute = Annotated[str, Field(min_length=1, max_length=ID_LENGTH)]
Values = Annotated[list[Value], Field(min_length=1, max_length=MOST_VALUES, fail_fast=True)]

DECIMALS = re.compile(r"-?[0-9]{1,20}")
MOST_EXCLUDED = 1_000  # a URL of more than 64 KiB is refused before it is read


def decimals_to_int(value: object) -> object:
    """Parse plain decimals alone; any other text is left for the schema to refuse."""
    return int(value) if isinstance(value, str) and DECIMALS.fullmatch(value) else value


TextId = Annotated[str, Field(min_length=1, max_length=ID_LENGTH)]
Decimals = Annotated[int, BeforeValidator(decimals_to_int)]
Condition = Annotated[str, Field(pattern="^[^:]+:", max_length=2 * ID_LENGTH + 1)]


class RetrieveRequest(RequestModel):
    """One user's question. Without any history the popular items are the answer."""

    model_config = example(history=["sku-00042", "sku-00007"], k=20, exclude=["sku-00001"])

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
    exclude: Ids = none_by_default(list, "item ids never to return")
    exclude_seen: bool = Field(
        default=True, description="whether the items of the whole history are excluded too"
    )
    filter: Annotated[dict[Attribute, Values], Field(max_length=MOST_ATTRIBUTES)] = none_by_default(
        dict,
        "attribute -> values: an item must have one of them, for each attribute "
        "named. `GET /bundle` tells the attributes, under `filters`; numbers and booleans "
        "are compared as text",
    )
    include: Include = none_by_default(list, "what to tell of each candidate besides its score")


class SimilarQuery(RequestModel):
    """Query string of a request for items like another one."""

    k: Decimals = Field(
        default=DEFAULT_COUNT,
        ge=1,
        le=MAX_COUNT,
        description="how many candidates; fewer come only where fewer are eligible",
    )
    exclude: Annotated[list[TextId], Field(max_length=MOST_EXCLUDED)] = Field(
        default=[], description="an item id never to return; repeat it for more"
    )
    filter: Annotated[list[Condition], Field(max_length=MOST_VALUES)] = Field(
        default=[],
        description="`attribute:value`; repeated for one attribute, any of its values will do, "
        "and every attribute that is named must fit. `GET /bundle` tells them, under `filters`",
    )
    include: Include = Field(
        default=[], description="what to tell of each candidate besides its score; repeatable"
    )


class SimilarRequest(SimilarQuery):
    """Which items are like this one? It is never among them itself."""

    item_id: TextId


class BatchRequest(RequestModel):
    """Questions of many users; each is answered as if asked alone, all from one bundle."""

    model_config = example(
        queries=[{"history": ["sku-00042"], "k": 20}, {"user_id": "user-00003", "k": 20}]
    )

    queries: Annotated[list[RetrieveRequest], Field(min_length=1, max_length=MAX_QUERIES)] = Field(
        description="what `/retrieve` takes"
    )


class Candidate(TypedDict):
    """An item and its score."""

    item_id: str
    score: Annotated[
        float | None,
        Field(description="inner product with the query; null where popular items are returned"),
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

    attributes: NotRequired[
        Annotated[
            dict[str, object],
            Field(description="where asked for: what the bundle tells of the item"),
        ]
    ]


class RetrieveResponse(TypedDict):
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
    unknown_values: NotRequired[
        Annotated[
            dict[str, list[str]],
            Field(description="attribute -> values of the filter that no item has"),
        ]
    ]


class BatchResponse(TypedDict):
    """An answer to each question, in the order asked."""

    bundle: Annotated[str, Field(description="the version of the bundle that answered them all")]
    results: Annotated[list[RetrieveResponse], Field(description="what `/retrieve` answers")]
