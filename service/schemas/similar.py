"""What is asked about items like another one, as the callers see it; else as `schemas`."""

from typing import Annotated

from pydantic import Field

from service.schemas.retrieval import DEFAULT_COUNT, MAX_COUNT, MOST_VALUES, Include
from service.schemas.shared import ID_LENGTH, Asked

MOST_EXCLUDED = 1_000  # a URL of more than 64 KiB is refused before it is read

TextId = Annotated[str, Field(min_length=1, max_length=ID_LENGTH)]
Condition = Annotated[str, Field(pattern="^[^:]+:", max_length=2 * ID_LENGTH + 1)]


class SimilarRequest(Asked):
    """Which items are like this one? It is never among them itself."""

    item_id: TextId = Field(
        examples=["sku-00042"],
        description="of the live bundle; percent-encoded, so that a slash is %2F",
    )
    k: int = Field(
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
