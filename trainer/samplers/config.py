"""The samplers' part of the run configuration: one table, told apart by its name."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

COUNT_LIMIT = 100_000  # vectors a step


class ConfigSection(BaseModel):
    """A table of the configuration: frozen, and closed, so that an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class InBatchConfig(ConfigSection):
    """The other positives of the batch as negatives; nothing more is encoded."""

    name: Literal["in-batch"] = "in-batch"


class InBatchUncorrectedConfig(ConfigSection):
    """As in-batch, without log q: shows what the correction is worth."""

    name: Literal["in-batch-uncorrected"]


class UniformConfig(ConfigSection):
    """Negatives drawn from the whole catalogue, each item alike."""

    name: Literal["uniform"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT, description="items encoded per step, shared")


class FullConfig(ConfigSection):
    """Every item of the catalogue: the softmax that samplers estimate, for small catalogues."""

    name: Literal["full"]


class PopularityConfig(ConfigSection):
    """Negatives drawn by a power of their share of the training targets."""

    name: Literal["popularity"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT, description="items encoded per step, shared")
    exponent: float = Field(
        0.75, ge=0, le=2, description="of the share: 0 draws every target alike, 1 by its share"
    )


class MixedConfig(ConfigSection):
    """The other positives of the batch together with uniform draws."""

    name: Literal["mixed"]
    count: int = Field(
        512, ge=1, le=COUNT_LIMIT, description="uniform items encoded per step, shared"
    )


class CrossBatchConfig(ConfigSection):
    """The other positives of the batch together with a bank of past ones; none encoded."""

    name: Literal["cross-batch"]
    size: int = Field(
        2048,
        ge=1,
        le=COUNT_LIMIT,
        description="past item vectors in the bank, oldest out first",
    )
    warmup_steps: int = Field(
        500, ge=0, description="steps before the bank is used: early vectors age too fast"
    )


class DNSConfig(ConfigSection):
    """Of a uniform pool, those that the model scores highest for each row."""

    name: Literal["dns"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT, description="items encoded per step, shared")
    kept: int = Field(
        32, ge=1, le=COUNT_LIMIT, description="highest-scoring of them per row, at most count"
    )

    @model_validator(mode="after")
    def validate_kept(self) -> Self:
        """Refuse to keep more than there are."""
        if self.kept > self.count:
            raise ValueError(f"kept ({self.kept}) must be at most count ({self.count})")
        return self


class BatchMixConfig(ConfigSection):
    """The other positives of the batch together with mixtures of them; none encoded."""

    name: Literal["batch-mix"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT, description="mixtures per step, shared")
    in_batch_weight: float = Field(
        0.2, gt=0, lt=1, description="weight of the batch; the mixtures have the rest"
    )
    mixing_temperature: float = Field(
        1.0,
        gt=0,
        le=100,
        description="of the mixing weights: the lower, the fewer items make up a mixture",
    )


class PositiveMixingConfig(ConfigSection):
    """Per row, hard items of a uniform pool moved towards the row's positive."""

    name: Literal["positive-mixing"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT, description="items encoded per step, shared")
    candidates: int = Field(
        16, ge=1, le=10_000, description="items of the pool that compete for one negative"
    )
    kept: int = Field(32, ge=1, le=10_000, description="negatives per row")


class EsansConfig(ConfigSection):
    """Negatives from the semantic map of the items, and virtual ones made between them."""

    name: Literal["esans"]
    easy: int = Field(
        512,
        ge=0,
        le=COUNT_LIMIT,
        multiple_of=2,
        description="items of other clusters encoded per step, in pairs, shared",
    )
    hard: int = Field(
        1, ge=0, le=1_000, description="items of the positive's cluster per row, encoded"
    )
    virtual: bool = Field(True, description="one virtual negative for each of them (EDIS)")
    alpha_min: float = Field(
        -0.5,
        ge=-2,
        lt=1,
        description="hard virtual negatives: least part of the way to the positive",
    )
    alpha_max: float = Field(0.5, gt=-2, lt=1, description="and the most")
    detach_positive: bool = Field(
        False, description="hard virtual negatives pass no gradient on to their positive"
    )
    normalize_virtual: bool = Field(
        True, description="virtual negatives are unit rows, as all others; else shorter"
    )
    in_batch: bool = Field(
        False, description="the batch's positives too, without those of a row's own cell"
    )
    log_q_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="part of log q that is subtracted, the law of all draws together",
    )
    hard_log_weight: float = Field(
        0.0, ge=-20, le=20, description="added to the score of hard negatives, over tau"
    )
    virtual_log_weight: float = Field(
        0.0, ge=-20, le=20, description="added to the score of virtual negatives, over tau"
    )
    hard_warmup_steps: int = Field(
        0, ge=0, description="steps over which hard negatives gain their whole weight"
    )

    @model_validator(mode="after")
    def validate_shares_and_counts(self) -> Self:
        """Refuse a reversed range, and a sampler without negatives."""
        if self.alpha_min > self.alpha_max:
            raise ValueError(
                f"alpha_min ({self.alpha_min}) must be at most alpha_max ({self.alpha_max})"
            )
        if not (self.easy or self.hard or self.in_batch):
            raise ValueError("easy and hard are 0 and in_batch is false: nothing to draw")
        return self


SamplerConfig = Annotated[
    InBatchConfig
    | InBatchUncorrectedConfig
    | UniformConfig
    | FullConfig
    | PopularityConfig
    | MixedConfig
    | CrossBatchConfig
    | DNSConfig
    | BatchMixConfig
    | PositiveMixingConfig
    | EsansConfig,
    Field(discriminator="name"),
]
