"""Schemas of the retrieval endpoints."""

import re
from typing import Annotated, Literal, NotRequired

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from index.ids import MAX_ID_LENGTH
from index.search.query import Fallback
from service.schemas.shared import Id, Ids, RequestModel, Value, empty_by_default, example

MAX_K, DEFAULT_K = 1_000, 100
MAX_QUERIES = 256

MAX_ATTRIBUTES, MAX_VALUES = 32, 1_000

Include = Annotated[list[Literal["clusters", "attributes"]], Field(max_length=8)]
Attribute = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
Values = Annotated[list[Value], Field(min_length=1, max_length=MAX_VALUES, fail_fast=True)]

DECIMAL_PATTERN = re.compile(r"-?[0-9]{1,20}")
MAX_URL_EXCLUDED = 1_000  # a URL of more than 64 KiB is rejected unread


def parse_decimal(value: object) -> object:
    """Parse plain decimal digits; the schema rejects any other text."""
    return int(value) if isinstance(value, str) and DECIMAL_PATTERN.fullmatch(value) else value


TextId = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
DecimalInt = Annotated[int, BeforeValidator(parse_decimal)]
Condition = Annotated[str, Field(pattern="^[^:]+:", max_length=2 * MAX_ID_LENGTH + 1)]


class RetrieveRequest(RequestModel):
    """Query for one user; without a usable history, popular items are returned."""

    model_config = example(history=["sku-00042", "sku-00007"], k=20, exclude=["sku-00001"])

    user_id: Id | None = None
    """User whose stored history is used if `history` is absent."""
    history: Ids | None = None
    """Item ids, oldest first; replaces the stored history, for the query and for seen items."""
    k: int = Field(default=DEFAULT_K, ge=1, le=MAX_K)
    """Number of candidates; fewer are returned only if fewer are eligible."""
    exclude: Ids = empty_by_default(list, "Item ids to exclude.")
    exclude_seen: bool = True
    """Whether all items of the history are excluded."""
    filter: Annotated[dict[Attribute, Values], Field(max_length=MAX_ATTRIBUTES)] = empty_by_default(
        dict,
        "Values by attribute: an item must have one of the values of each attribute. "
        "`GET /bundle` lists the attributes under `filters`; numbers and booleans are compared "
        "as text.",
    )
    include: Include = empty_by_default(list, "Additional fields of each candidate.")


class SimilarQuery(RequestModel):
    """Query string of a similar-items request."""

    k: DecimalInt = Field(default=DEFAULT_K, ge=1, le=MAX_K)
    """Number of candidates; fewer are returned only if fewer are eligible."""
    exclude: Annotated[list[TextId], Field(max_length=MAX_URL_EXCLUDED)] = Field(default=[])
    """Item id to exclude; repeatable."""
    filter: Annotated[list[Condition], Field(max_length=MAX_VALUES)] = Field(default=[])
    """Condition `attribute:value`; repeatable. An item must have one of the values of each
    attribute. `GET /bundle` lists the attributes under `filters`."""
    include: Include = Field(default=[])
    """Additional field of each candidate; repeatable."""


class SimilarRequest(SimilarQuery):
    """Query for items similar to an item, which is itself excluded."""

    item_id: TextId


class BatchRequest(RequestModel):
    """Queries of many users, processed as if sent alone, all from one bundle."""

    model_config = example(
        queries=[{"history": ["sku-00042"], "k": 20}, {"user_id": "user-00003", "k": 20}]
    )

    queries: Annotated[list[RetrieveRequest], Field(min_length=1, max_length=MAX_QUERIES)]
    """Request bodies of `/retrieve`."""


class Candidate(TypedDict):
    """An item and its score."""

    item_id: str
    score: Annotated[
        float | None,
        Field(description="Inner product with the query vector; null for popular items."),
    ]
    cluster: NotRequired[
        Annotated[
            tuple[int, int] | None,
            Field(
                description="If included: level-1 and level-2 code in the cluster map of version "
                "`clusters`; null if there is no map or it lacks the item."
            ),
        ]
    ]
    attributes: NotRequired[
        Annotated[
            dict[str, object],
            Field(description="If included: attributes of the item in the bundle."),
        ]
    ]


class RetrieveResponse(TypedDict):
    """Candidates, best first."""

    bundle: Annotated[str, Field(description="Version of the bundle.")]
    candidates: list[Candidate]
    clusters: NotRequired[
        Annotated[str, Field(description="Version of the cluster map, if included.")]
    ]
    fallback: NotRequired[
        Annotated[Fallback, Field(description="Reason why popular items are returned.")]
    ]
    unknown_items: NotRequired[
        Annotated[list[str], Field(description="Ids of the history that the bundle lacks.")]
    ]
    unknown_values: NotRequired[
        Annotated[
            dict[str, list[str]], Field(description="Filter values by attribute that no item has.")
        ]
    ]


class BatchResponse(TypedDict):
    """One result per query, in request order."""

    bundle: Annotated[str, Field(description="Version of the bundle of all results.")]
    results: Annotated[list[RetrieveResponse], Field(description="Response bodies of `/retrieve`.")]
