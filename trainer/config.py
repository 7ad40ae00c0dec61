"""Run configuration: a TOML file validated into one frozen section per stage."""

import reprlib
import tomllib
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from index.errors import ConfigError
from index.ingest.tables import reason_of, suggest
from trainer.data.split import SplitName
from trainer.samplers.config import ConfigSection, EsansConfig, SamplerConfig

Precision = Literal["auto", "float32", "bfloat16"]


class DataConfig(ConfigSection):
    """How interactions are split into train, validation and test."""

    split: SplitName = "auto"
    """auto (the split column if present, else leave-last-two if the order is known, else random),
    column, leave-last-two (per user), last-fifth (by time, over all users), random (two per
    user), cold (5 % of the items are held out of training)"""


class TowersConfig(ConfigSection):
    """Item tower and user tower."""

    embedding_dim: int = Field(64, ge=4, le=1024)
    """dimension of item and query vectors"""
    history_length: int = Field(50, ge=1, le=1000)
    """number of most recent items that the user tower reads"""
    id_dropout: float = Field(0.1, ge=0, lt=1)
    """probability that an item's id is replaced by the unknown-item embedding in a training step,
    so that the tower learns to encode cold items from content"""
    id_init_std: float = Field(0.01, gt=0, le=1)
    """standard deviation of the initial id embeddings; small values let content dominate early
    training"""


class TrainingConfig(ConfigSection):
    """Training loop, loss and early stopping."""

    sampler: SamplerConfig = EsansConfig()
    """negative sampler, selected by its name"""
    log_q_share: float = Field(1.0, ge=0, le=1)
    """fraction of the logQ correction to apply; 1 estimates the full softmax"""
    positive_log_q: bool = False
    """subtract log q from the positive's score, too, as the usual logQ correction does; without it,
    the positive counts exactly once, and only the negatives are weighted"""
    batch_size: int = Field(512, ge=2, le=65_536)
    """training targets per step"""
    learning_rate: float = Field(1e-3, gt=0, le=1)
    """learning rate of both optimizers"""
    dense_weight_decay: float = Field(0.0, ge=0, le=1)
    """decoupled weight decay of all weights except the id embeddings"""
    temperature: float = Field(0.07, gt=0, le=10)
    """softmax temperature: scores are divided by it"""
    epochs: int = Field(30, ge=1, le=10_000)
    """maximum number of epochs"""
    patience: int = Field(2, ge=1, le=1000)
    """early stopping: epochs without improvement of validation recall@50"""
    validation_cases: int = Field(10_000, ge=1)
    """maximum number of users in validation, sampled with the seed; fewer above 4 million items"""
    checkpoint_interval_s: float = Field(60, ge=0)
    """seconds between checkpoints, from which a killed run resumes; 0: one after each step"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda; auto uses the first CUDA device if available"""
    precision: Precision = "auto"
    """auto, float32 or bfloat16, of the towers in training; weights and scores are always float32,
    and so is everything that is published; auto: bfloat16 on CUDA devices that support it"""
    threads: int = Field(1, ge=1, le=1024)
    """CPU threads of torch; more speed up large batches on an idle machine and slow training down
    on a busy one"""

    @model_validator(mode="before")
    @classmethod
    def reject_weight_decay(cls, values: object) -> object:
        """Reject `weight_decay`: only the id embeddings of a batch are updated in a step."""
        if isinstance(values, dict) and values.get("weight_decay"):
            raise ValueError(
                f"weight_decay is {values['weight_decay']}, expected none: it cannot apply to the "
                "id embeddings; set dense_weight_decay, which applies to all other weights"
            )
        return values


class ClustersConfig(ConfigSection):
    """Cluster map for cluster-based samplers, built from content and behaviour."""

    modalities: tuple[str, ...] = ()
    """modalities to use, `behavioural` included; empty: all"""
    behaviour_file: str = ""
    """.npy file [items, dim] to use as the behavioural modality; empty: learned from the training
    histories"""
    embedding_dim: int = Field(64, ge=2, le=1024)
    """dimension of the aligned modality embeddings"""
    alignment_epochs: int = Field(20, ge=0, le=10_000)
    """epochs of modality alignment"""
    alignment_steps: int = Field(2_000, ge=0, le=10**6)
    """maximum number of steps of modality alignment"""
    alignment_batch: int = Field(512, ge=2, le=65_536)
    """items per batch of modality alignment"""
    alignment_temperature: float = Field(0.1, gt=0, le=10)
    """temperature of the contrastive alignment loss (tau_a)"""
    level_1_codes: int = Field(0, ge=0, le=8_192)
    """number of clusters (K1, level 1); 0: sqrt(items), between 8 and 4096"""
    level_2_codes: int = Field(0, ge=0, le=4_096)
    """number of cells per cluster (K2, level 2); all clusters share the codebook; 0: so many that
    a cell has 12 items on average, at least 2"""
    temperature_share: float = Field(1.0, gt=0, le=100)
    """cluster temperature T of the easy proposal, as a fraction of the median distance between
    clusters; higher values sample more distant clusters"""


EaseLambda = Annotated[float, Field(ge=0.01, allow_inf_nan=False)]  # with less, EASE may fail


class EvaluationConfig(ConfigSection):
    """Offline evaluation before a bundle becomes current."""

    max_cases: int = Field(50_000, ge=0)
    """maximum number of test users, sampled with the seed; 0: all"""
    ease_lambdas: tuple[EaseLambda, ...] = Field((10.0, 50.0, 250.0, 1000.0), min_length=1)
    """values of the L2 regularisation (lambda) of the EASE baseline, of which the one with the
    highest recall@50 on the validation users is used"""
    ease_items_limit: int = Field(10_000, ge=0)
    """maximum number of items for the EASE baseline, which needs an items x items matrix; larger
    catalogues skip it"""


class BundleConfig(ConfigSection):
    """Contents of the published bundle."""

    name: str = Field("esans", min_length=1, max_length=80)
    """model name in the manifest"""
    histories: bool = True
    """include every user's history, so that /retrieve accepts a user_id; set to false if
    histories must not leave the trainer"""
    training_state: bool = True
    """keep weights and optimizer state in .training/ of the bundle folder, for --warm-from; three
    times the size of the id embeddings: 8 GB for 10 million items of dimension 64"""
    filters: tuple[str, ...] = ("*",)
    """columns of the items table that /retrieve can filter by: text, integers, booleans, lists of
    text; * selects all of these with at most 1,000 distinct values, except unique ids"""
    attributes: tuple[str, ...] = ("*",)
    """columns of the items table that /retrieve can return; * selects all except features"""


class RunConfig(ConfigSection):
    """Configuration of a training run. Every field has a default."""

    seed: int = Field(0, ge=0, lt=2**31)
    """random seed of the run"""
    data: DataConfig = DataConfig()
    towers: TowersConfig = TowersConfig()
    clusters: ClustersConfig = ClustersConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    bundle: BundleConfig = BundleConfig()


def load_config(path: Path) -> RunConfig:
    """Load a TOML file.

    Raises:
        ConfigError: the file is not TOML, or lists every invalid key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the parser raises more than its own
        raise ConfigError(
            f"{path}: cannot be read ({reason_of(error)}); expected a TOML file, see "
            "`python -m trainer config`"
        ) from error
    return validate_config(values, str(path))


def validate_config(values: object, source: str) -> RunConfig:
    """Validate values read from `source`; raises ConfigError listing every invalid key."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        lines = [f"  - {_describe(fault)}" for fault in error.errors(include_url=False)]
        raise ConfigError(
            f"{source}: invalid configuration\n" + "\n".join(lines) + "\n"
            "see `python -m trainer config` for every key, its range and description"
        ) from error


def _describe(fault: ErrorDetails) -> str:
    """Describe an invalid key: where, what was found and what was expected."""
    location = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{location}: {fault['msg']}{_suggest_key(location)}"
    try:
        return f"{location}: {fault['msg']}, found {reprlib.repr(fault['input'])}"
    except ValueError:  # an integer of thousands of digits
        return f"{location}: {fault['msg']}, found a longer number"


def _suggest_key(location: str) -> str:
    """Return "; did you mean X?" for an unknown key: a similar one, or the same elsewhere."""
    sections = _list_sections()
    parent, _, key = location.rpartition(".")
    section = sections.get(parent)
    hint = suggest(key, list(section.model_fields)) if section else ""
    elsewhere = [f"{path}.{key}" for path, other in sections.items() if key in other.model_fields]
    return hint or (f"; did you mean {elsewhere[0].lstrip('.')}?" if elsewhere else "")


def _list_sections() -> dict[str, type[BaseModel]]:
    """Return path -> section, with one path for each sampler."""
    sections: dict[str, type[BaseModel]] = {"": RunConfig}
    for name, field in RunConfig.model_fields.items():
        if isinstance(field.default, BaseModel):
            sections[name] = type(field.default)
    for sampler in get_args(get_args(SamplerConfig)[0]):
        (name,) = get_args(sampler.model_fields["name"].annotation)
        sections[f"training.sampler.{name}"] = sampler
    return sections
