"""The samplers' part of the run configuration: one table, told apart by its name."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainer.part import Part

COUNT_LIMIT = 100_000  # vectors a step


class InBatchConfig(Part):
    """The other positives of the batch as negatives; nothing more is encoded."""

    name: Literal["in-batch"] = "in-batch"


class InBatchUncorrectedConfig(Part):
    """As in-batch, without log q: shows what the correction is worth."""

    name: Literal["in-batch-uncorrected"]


class UniformConfig(Part):
    """Negatives drawn from the whole catalogue, each item alike."""

    name: Literal["uniform"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT, description="items encoded per step, shared")


class PopularityConfig(Part):
    """Negatives drawn by a power of their share of the training targets."""

    name: Literal["popularity"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT, description="items encoded per step, shared")
    exponent: float = Field(
        0.75, ge=0, le=2, description="of the share: 0 draws every target alike, 1 by its share"
    )


class MixedConfig(Part):
    """The other positives of the batch together with uniform draws."""

    name: Literal["mixed"]
    count: int = Field(
        512, ge=1, le=COUNT_LIMIT, description="uniform items encoded per step, shared"
    )


class CrossBatchConfig(Part):
    """The other positives of the batch together with a bank of past ones; none encoded."""

    name: Literal["cross-batch"]
    size: int = Field(
        2048,
        ge=1,
        le=COUNT_LIMIT,
        description="past item vectors in the bank, oldest out first",
    )
    warm_up: int = Field(
        500, ge=0, description="steps before the bank is used: early vectors age too fast"
    )


class DynamicConfig(Part):
    """Of a uniform pool, those that the model scores highest for each row."""

    name: Literal["dynamic"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT, description="items encoded per step, shared")
    kept: int = Field(
        32, ge=1, le=COUNT_LIMIT, description="highest-scoring of them per row, at most count"
    )

    @model_validator(mode="after")
    def refuse_more_than_there_are(self) -> Self:
        """Catch a `kept` that would keep everything and choose nothing."""
        if self.kept > self.count:
            raise ValueError(f"kept ({self.kept}) must be at most count ({self.count})")
        return self


class BatchMixConfig(Part):
    """The other positives of the batch together with mixtures of them; none encoded."""

    name: Literal["batch-mix"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT, description="mixtures per step, shared")
    batch_part: float = Field(
        0.2, gt=0, lt=1, description="weight of the batch; the mixtures have the rest"
    )
    mix_temperature: float = Field(
        1.0,
        gt=0,
        le=100,
        description="of the mixing weights: the lower, the fewer items make up a mixture",
    )


class PositiveMixConfig(Part):
    """Per row, hard items of a uniform pool moved towards the row's positive."""

    name: Literal["positive-mix"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT, description="items encoded per step, shared")
    candidates: int = Field(
        16, ge=1, le=10_000, description="items of the pool that compete for one negative"
    )
    kept: int = Field(32, ge=1, le=10_000, description="negatives per row")


SamplerConfig = Annotated[
    InBatchConfig
    | InBatchUncorrectedConfig
    | UniformConfig
    | PopularityConfig
    | MixedConfig
    | CrossBatchConfig
    | DynamicConfig
    | BatchMixConfig
    | PositiveMixConfig,
    Field(discriminator="name"),
]
