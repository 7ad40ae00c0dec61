"""What is asked and answered about cluster maps, as the callers see it; else as `schemas`."""

from typing import Annotated, Any, NotRequired

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from service.schemas.shared import Id, RequestModel, Source, example
from service.schemas.state import ClusterWatcherStatus

MOST_POSITIVES = 10_000
MOST_EACH = 1_000
MOST_DRAWS = 1_000_000

Each = Annotated[int, Field(ge=0, le=MOST_EACH)]


class NegativesRequest(RequestModel):
    """Which negatives for which positives? At most a million draws in all."""

    model_config = example(positives=["sku-00042", "sku-00007"], easy=5, hard=5, seed=1)

    easy: Each = Field(description="for each positive, from other clusters")
    hard: Each = Field(
        description="for each positive, from its own cluster without its own cell; easy ones "
        "where there is none"
    )
    # after the counts: its validator looks at them
    positives: Annotated[list[Id], Field(max_length=MOST_POSITIVES, fail_fast=True)] = Field(
        description="item ids; one that comes twice gets negatives twice"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        default=None, description="draws the same again from the same map; else chance does"
    )

    @field_validator("positives")
    @classmethod
    def refuse_too_many_draws(cls, positives: list[str], info: ValidationInfo) -> list[str]:
        """Bound the answer: positives x (easy + hard)."""
        draws = len(positives) * (info.data.get("easy", 0) + info.data.get("hard", 0))
        if draws > MOST_DRAWS:
            raise PydanticCustomError(
                "too_many_draws",
                "at most {most} draws at once; {draws} were asked for: ask in parts",
                {"most": MOST_DRAWS, "draws": draws},
            )
        return positives


class NegativesResponse(TypedDict):
    """Negatives of each known positive: row by row as in `positives`."""

    bundle: Annotated[str, Field(description="the version of the bundle whose items they are")]
    clusters: Annotated[str, Field(description="the version of the map they are drawn from")]
    positives: Annotated[list[str], Field(description="the known ones, in the order asked")]
    easy: Annotated[list[list[str]], Field(description="item ids, `easy` for each positive")]
    easy_log_counts: Annotated[
        list[list[float]],
        Field(
            description="log of how often each of these is expected among all draws for its "
            "positive, easy and hard together: the log q to subtract"
        ),
    ]
    hard: Annotated[list[list[str]], Field(description="item ids, `hard` for each positive")]
    hard_log_counts: Annotated[
        list[list[float]], Field(description="as `easy_log_counts`, of the hard ones")
    ]
    unknown_items: NotRequired[
        Annotated[list[str], Field(description="positives that the bundle lacks")]
    ]


class ClustersResponse(TypedDict):
    """The card of the map that is used."""

    version: str
    source: Annotated[Source, Field(description="redis or folder: the store; or the bundle's own")]
    items: Annotated[int, Field(description="that the map knows")]
    unknown_items: Annotated[
        int, Field(description="of the live bundle: taken for one cluster of their own")
    ]
    level_1_codes: int
    level_2_codes: int
    temperature_share: float
    made: Annotated[dict[str, Any], Field(description="how and when")]
    age_seconds: Annotated[float, Field(description="since it was made, or else first used")]
    bundle: Annotated[str, Field(description="the version of the bundle it is joined with")]
    sequence: Annotated[int | None, Field(description="of the pointer; null for a bundle's own")]
    is_pinned: bool
    follower: ClusterWatcherStatus
