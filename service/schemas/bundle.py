"""What the operator asks and is answered about bundles."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from index.bundle.manifest import VERSION_PATTERN
from service.schemas.shared import Asked, example


class RollbackRequest(Asked):
    """Which bundle is to be current?"""

    model_config = example()

    version: Annotated[str, Field(pattern=VERSION_PATTERN)] | None = Field(
        default=None, description="which one; without it, the one before the current one"
    )


class ReloadAnswer(TypedDict):
    """What is live once `current` has been looked at."""

    status: Literal["ready"]
    bundle: Annotated[str, Field(description="the version that answers now")]
    reasons: NotRequired[list[str]]


class RollbackAnswer(TypedDict):
    """What `current` says now; this service follows it already, replicas within seconds."""

    status: Literal["ready"]
    bundle: Annotated[str, Field(description="the version that answers now")]
    previous: Annotated[str | None, Field(description="where a rollback would lead next")]
    sequence: int
