"""What every part of the run configuration is made of."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Frozen, and closed: an unknown key stops the start."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
