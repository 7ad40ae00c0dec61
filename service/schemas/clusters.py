"""Schemas of the cluster map endpoints."""

from typing import Annotated, Any, NotRequired

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from service.schemas.shared import Id, RequestModel, Source, example
from service.schemas.state import ClusterWatcherStatus

MAX_POSITIVES = 10_000
MAX_PER_POSITIVE = 1_000
MAX_NEGATIVES = 1_000_000
DEFAULT_PER_POSITIVE = 10

PerPositive = Annotated[int, Field(ge=0, le=MAX_PER_POSITIVE)]


class NegativesRequest(RequestModel):
    """Positives and how many negatives to sample for each, at most a million in total."""

    model_config = example(positives=["sku-00042", "sku-00007"], easy=5, hard=5, seed=1)

    easy: PerPositive = DEFAULT_PER_POSITIVE
    """Easy negatives per positive, sampled from other clusters."""
    hard: PerPositive = DEFAULT_PER_POSITIVE
    """Hard negatives per positive, sampled from its cluster outside its cell; easy ones if there
    are none."""
    # after the counts, which its validator reads
    positives: Annotated[list[Id], Field(max_length=MAX_POSITIVES, fail_fast=True)]
    """Item ids; a repeated id gets negatives each time."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Random seed: the same map and seed give the same negatives."""

    @field_validator("positives")
    @classmethod
    def validate_total(cls, positives: list[str], info: ValidationInfo) -> list[str]:
        """Bound the response: positives x (easy + hard)."""
        total = len(positives) * (info.data.get("easy", 0) + info.data.get("hard", 0))
        if total > MAX_NEGATIVES:
            raise PydanticCustomError(
                "too_many_draws",
                "at most {limit} negatives per request, not {total}; split the request",
                {"limit": MAX_NEGATIVES, "total": total},
            )
        return positives


class NegativesResponse(TypedDict):
    """Negatives of each known positive; row i belongs to `positives[i]`."""

    bundle: Annotated[str, Field(description="Version of the live bundle.")]
    clusters: Annotated[str, Field(description="Version of the cluster map.")]
    positives: Annotated[list[str], Field(description="Known positives, in request order.")]
    easy: Annotated[list[list[str]], Field(description="Item ids, `easy` per positive.")]
    easy_log_counts: Annotated[
        list[list[float]],
        Field(
            description="Log expected count of each easy negative among all negatives of its "
            "positive, easy and hard: the log q to subtract from its logit."
        ),
    ]
    hard: Annotated[list[list[str]], Field(description="Item ids, `hard` per positive.")]
    hard_log_counts: Annotated[
        list[list[float]], Field(description="As `easy_log_counts`, for hard negatives.")
    ]
    unknown_items: NotRequired[
        Annotated[list[str], Field(description="Positives that the bundle lacks.")]
    ]


class ClustersResponse(TypedDict):
    """The cluster map in use."""

    version: str
    source: Annotated[
        Source, Field(description="`redis` or `folder`: the store; `bundle`: the bundle's own map.")
    ]
    items: Annotated[int, Field(description="Number of items in the map.")]
    unknown_items: Annotated[
        int,
        Field(description="Items of the live bundle that the map lacks; they form one cluster."),
    ]
    level_1_codes: int
    level_2_codes: int
    temperature_share: float
    made: Annotated[
        dict[str, Any], Field(description="Provenance: how and when the map was built.")
    ]
    age_seconds: Annotated[
        float, Field(description="Age since the map was built, or else since it was first used.")
    ]
    bundle: Annotated[str, Field(description="Version of the bundle that it is joined with.")]
    sequence: Annotated[
        int | None, Field(description="Sequence of the pointer; null for a bundle's own map.")
    ]
    is_pinned: bool
    follower: Annotated[
        ClusterWatcherStatus, Field(description="Status of the cluster map watcher.")
    ]
