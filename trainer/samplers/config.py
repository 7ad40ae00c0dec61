"""Sampler configuration: one table of the run configuration, discriminated by `name`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

COUNT_LIMIT = 100_000  # vectors a step


class ConfigSection(BaseModel):
    """Table of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class InBatchConfig(ConfigSection):
    """In-batch negatives with logQ correction; encodes no further item."""

    name: Literal["in-batch"]


class InBatchUncorrectedConfig(ConfigSection):
    """In-batch negatives without log q; measures what the correction is worth."""

    name: Literal["in-batch-uncorrected"]


class UniformConfig(ConfigSection):
    """Uniform negatives from the whole catalogue."""

    name: Literal["uniform"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT)
    """items encoded per step, shared"""


class FullConfig(ConfigSection):
    """Full softmax over the catalogue, which samplers estimate; for small catalogues."""

    name: Literal["full"]


class PopularityConfig(ConfigSection):
    """Negatives sampled in proportion to a power of their share of the training targets."""

    name: Literal["popularity"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT)
    """items encoded per step, shared"""
    exponent: float = Field(0.75, ge=0, le=2)
    """of the share: 0 is uniform over the targets, 1 their share"""


class MixedConfig(ConfigSection):
    """In-batch and uniform negatives together (MNS)."""

    name: Literal["mixed"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT)
    """uniform items encoded per step, shared"""


class CrossBatchConfig(ConfigSection):
    """In-batch negatives and a memory bank of past ones (CBNS); encodes no further item."""

    name: Literal["cross-batch"]
    size: int = Field(2048, ge=1, le=COUNT_LIMIT)
    """past item vectors in the bank, first in, first out"""
    warmup_steps: int = Field(500, ge=0)
    """steps before the bank is used: early vectors go stale at once"""


class PopularityBankConfig(ConfigSection):
    """Negatives by popularity, and a memory bank of those of earlier steps."""

    name: Literal["popularity-bank"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT)
    """items encoded per step, shared"""
    exponent: float = Field(0.75, ge=0, le=2)
    """of the share: 0 is uniform over the targets, 1 their share"""
    size: int = Field(2048, ge=1, le=COUNT_LIMIT)
    """past item vectors in the bank, first in, first out"""
    warmup_steps: int = Field(500, ge=0)
    """steps before the bank is used: early vectors go stale at once"""


class DNSConfig(ConfigSection):
    """The highest-scored items of a uniform pool for each row (DNS)."""

    name: Literal["dns"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT)
    """items encoded per step, shared"""
    kept: int = Field(32, ge=1, le=COUNT_LIMIT)
    """highest-scored items kept per row, at most count"""

    @model_validator(mode="after")
    def validate_kept(self) -> Self:
        """Reject a `kept` above `count`."""
        if self.kept > self.count:
            raise ValueError(f"kept ({self.kept}) must be at most count ({self.count})")
        return self


class BatchMixConfig(ConfigSection):
    """In-batch negatives and mixtures of them (BMNS); encodes no further item."""

    name: Literal["batch-mix"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT)
    """mixtures per step, shared"""
    in_batch_weight: float = Field(0.2, gt=0, lt=1)
    """weight of the batch; the mixtures get the rest"""
    mixing_temperature: float = Field(1.0, gt=0, le=100)
    """of the mixing weights: at a lower one, fewer items dominate a mixture"""


class PositiveMixingConfig(ConfigSection):
    """Per row, hard items of a uniform pool mixed with the positive (MixGCF-style)."""

    name: Literal["positive-mixing"]
    count: int = Field(512, ge=1, le=COUNT_LIMIT)
    """items encoded per step, shared"""
    candidates: int = Field(16, ge=1, le=10_000)
    """items of the pool to select each negative from"""
    kept: int = Field(32, ge=1, le=10_000)
    """negatives per row"""


PAPER: dict[str, Any] = {  # defaults of a plain reading of the paper, with our counts
    "easy": 512,
    "hard": 1,
    "virtual": True,
    "alpha_min": -0.5,
    "alpha_max": 0.5,
    "detach_virtual": False,
    "in_batch": False,
    "in_batch_histories": 0,
    "log_q_share": 0.0,
    "max_cell_share": 1.0,
}


class EsansConfig(ConfigSection):
    """In-batch negatives and warm items by cluster and popularity (ESANS)."""

    name: Literal["esans"] = "esans"
    variant: Literal["warm", "paper"] = "warm"
    """warm: warm items by cluster and popularity; paper: a plain reading of the paper, uniform in
    other clusters, with other defaults (see ESANS explained)"""
    easy: int = Field(-1, ge=-1, le=COUNT_LIMIT)
    """easy negatives encoded per step, shared; in pairs of one cluster if virtual; -1: 256 above a
    thousand items per row of the batch, else 0"""
    exponent: float = Field(0.75, ge=0, le=2)
    """of an item's share of the targets, in its cluster (beta): lower values prefer rare items"""
    cluster_exponent: float = Field(1.0, ge=0, le=2)
    """of the weight of a cluster (gamma): 0 samples large and small clusters alike"""
    own_cluster: bool = True
    """easy negatives may be of the positive's cluster"""
    hard: int = Field(1, ge=0, le=1_000)
    """hard negatives encoded per row, of the positive's cluster outside its cell"""
    in_batch: bool = True
    """add in-batch negatives"""
    in_batch_histories: int = Field(-1, ge=-1, le=COUNT_LIMIT)
    """also take in-batch negatives from the histories, whose items are encoded anyway: at most
    this many distinct items, targets included, or the batch size if that is larger; 0: targets
    only; -1: 2,048 above a thousand items per row of the batch, else 0"""
    max_cell_share: float = Field(0.0, ge=0, le=1)
    """mask items of the positive's cell if the cell has at most this share of the targets; 0: mask
    seen items only"""
    log_q_share: float = Field(1.0, ge=0, le=1)
    """share of log q of the whole proposal distribution that is subtracted"""
    virtual: bool = False
    """add a virtual negative for each easy and hard one (EDIS)"""
    virtual_weight: float = Field(0.1, ge=0, le=100)
    """weight of the loss term of virtual negatives; the variant paper has no such term"""
    alpha_min: float = Field(0.1, ge=-2, lt=1)
    """hard virtual negatives: lowest weight of the positive"""
    alpha_max: float = Field(0.4, gt=-2, lt=1)
    """hard virtual negatives: highest weight of the positive"""
    detach_virtual: bool = True
    """stop the gradient from virtual negatives to the items that they interpolate"""
    normalize_virtual: bool = True
    """normalise virtual negatives; otherwise they are shorter and easier"""
    hard_log_weight: float = Field(0.0, ge=-20, le=20)
    """added to the logit of hard negatives"""
    virtual_log_weight: float = Field(0.0, ge=-20, le=20)
    """added to the logit of virtual negatives"""
    hard_warmup_steps: int = Field(0, ge=0)
    """steps over which hard negatives reach their full weight"""

    @model_validator(mode="before")
    @classmethod
    def apply_variant(cls, values: object) -> object:
        """Fill in the defaults of the variant paper."""
        if isinstance(values, dict) and values.get("variant") == "paper":
            return PAPER | values
        return values

    @model_validator(mode="after")
    def validate_shares_and_counts(self) -> Self:
        """Reject a reversed range and a sampler without negatives."""
        if self.alpha_min > self.alpha_max:
            raise ValueError(
                f"alpha_min ({self.alpha_min}) must be at most alpha_max ({self.alpha_max})"
            )
        if self.in_batch_histories > 0 and not self.in_batch:
            raise ValueError(
                f"in_batch_histories is {self.in_batch_histories} and in_batch is false; set "
                "in_batch to true, or in_batch_histories to 0"
            )
        if self.virtual and self.easy > 0 and self.easy % 2:
            raise ValueError(
                f"easy is {self.easy} and virtual is true; set easy to an even number, because "
                "virtual negatives interpolate pairs"
            )
        if self.variant == "warm" and self.virtual and not (self.easy > 0 or self.hard):
            where = " in small catalogues" if self.easy else ""
            raise ValueError(
                f"virtual is true, but easy and hard are 0{where}, so there is nothing to "
                "interpolate; set one of them, or virtual to false"
            )
        if not (self.easy > 0 or self.hard or self.in_batch):
            raise ValueError(
                f"easy is {self.easy}, hard is 0 and in_batch is false, so nothing is sampled; "
                "set one of them"
            )
        return self


SamplerConfig = Annotated[
    InBatchConfig
    | InBatchUncorrectedConfig
    | UniformConfig
    | FullConfig
    | PopularityConfig
    | MixedConfig
    | CrossBatchConfig
    | PopularityBankConfig
    | DNSConfig
    | BatchMixConfig
    | PositiveMixingConfig
    | EsansConfig,
    Field(discriminator="name"),
]
