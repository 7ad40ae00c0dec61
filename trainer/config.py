"""The run configuration: TOML in, one frozen part per stage out. Each field explains itself."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from index.errors import ConfigError
from trainer.data.split import SplitName
from trainer.samplers.config import ConfigSection, InBatchConfig, SamplerConfig


class DataConfig(ConfigSection):
    """Which interactions are trained on, and which are held out to measure."""

    split: SplitName = Field(
        default="auto",
        description="auto: the split column where there is one, else leave-last-two by order, "
        "else random. column, leave-last-two, last-fifth (by time over all users), random, "
        "cold (5 % of the items are held out of training altogether)",
    )


class TowersConfig(ConfigSection):
    """The two towers."""

    embedding_dim: int = Field(64, ge=4, le=1024, description="numbers per vector")
    history_length: int = Field(
        50, ge=1, le=1000, description="newest items of a history that the user tower reads"
    )
    id_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of items whose id is hidden in a training step, so that content "
        "learns to stand alone",
    )
    id_init_std: float = Field(
        0.01,
        gt=0,
        le=1,
        description="standard deviation of a fresh id embedding; small: content speaks first",
    )


class TrainingConfig(ConfigSection):
    """The loop."""

    sampler: SamplerConfig = Field(
        default=InBatchConfig(), description="where negatives come from: a table with its name"
    )
    log_q_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="part of log q that is subtracted; 1 estimates full softmax",
    )
    batch_size: int = Field(512, ge=2, le=65_536, description="training targets per step")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="of Adam")
    weight_decay: float = Field(0.0, ge=0, le=1, description="of AdamW, decoupled")
    temperature: float = Field(0.07, gt=0, le=10, description="scores are divided by it")
    epochs: int = Field(30, ge=1, le=10_000, description="passes over the targets, at most")
    patience: int = Field(
        2, ge=1, le=1000, description="epochs without a better validation recall@50, then stop"
    )
    validation_cases: int = Field(
        10_000, ge=1, description="users asked after each epoch, a seeded sample of this size"
    )
    checkpoint_interval_s: float = Field(
        60, ge=0, description="seconds between checkpoints; a killed run goes on from the last"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes the first CUDA device where there is one"
    )
    threads: int = Field(
        1,
        ge=1,
        le=1024,
        description="CPU threads of torch; more help large batches on an idle machine, "
        "and cost a factor on a busy one",
    )


class ClustersConfig(ConfigSection):
    """The cluster map that negatives are drawn from: what items look like, say and do."""

    modalities: tuple[str, ...] = Field(
        default=(),
        description="which to use, by name, `behavioural` among them; empty: all there are",
    )
    behaviour_file: str = Field(
        default="",
        description="an .npy of [items, width] to use as the behavioural modality; empty: it "
        "is learned from the training histories",
    )
    embedding_dim: int = Field(64, ge=2, le=1024, description="numbers per aligned row")
    alignment_epochs: int = Field(
        20, ge=0, le=10_000, description="passes over the items when modalities are aligned"
    )
    alignment_steps: int = Field(
        2_000, ge=0, le=10**6, description="batches of the alignment, at most"
    )
    alignment_batch: int = Field(512, ge=2, le=65_536, description="items per batch")
    alignment_temperature: float = Field(
        0.1, gt=0, le=10, description="of the contrastive loss that aligns (tau_a)"
    )
    level_1_codes: int = Field(
        0, ge=0, le=8_192, description="clusters (K1); 0: sqrt(items), within 8..4096"
    )
    level_2_codes: int = Field(
        16, ge=1, le=4_096, description="codes within the clusters (K2), shared by all of them"
    )
    temperature_share: float = Field(
        0.2,
        gt=0,
        le=100,
        description="how far easy negatives reach: the softmax temperature T, as a part of the "
        "median distance between two clusters",
    )


class EvaluationConfig(ConfigSection):
    """What is measured before a bundle is made current."""

    ease_lambda: float = Field(250.0, gt=0, description="ridge of the EASE reference")
    ease_items_limit: int = Field(
        20_000, ge=0, description="EASE needs items x items numbers: above this it is skipped"
    )


class BundleConfig(ConfigSection):
    """What is published."""

    name: str = Field("esans", min_length=1, max_length=80, description="told in the manifest")
    histories: bool = Field(
        True,
        description="publish every user's history, so that /retrieve answers for a user_id; "
        "false where histories must not leave the trainer",
    )
    filters: tuple[str, ...] = Field(
        default=("*",),
        description="columns of the items table that /retrieve can filter by: text, integers, "
        "booleans, lists of text; * stands for all of these that have at most 1,000 values and "
        "are no id",
    )
    attributes: tuple[str, ...] = Field(
        default=("*",),
        description="columns of the items table that /retrieve can tell; * stands for all but "
        "features",
    )


class RunConfig(ConfigSection):
    """A whole run. Every field has a default: an empty file is a good configuration."""

    seed: int = Field(0, ge=0, lt=2**31, description="of everything random in the run")
    data: DataConfig = DataConfig()
    towers: TowersConfig = TowersConfig()
    clusters: ClustersConfig = ClustersConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    bundle: BundleConfig = BundleConfig()


def read_config(path: Path) -> RunConfig:
    """Read a TOML file.

    Raises ConfigError, naming the file and each key at fault, if it cannot be used.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    return check_config(values, str(path))


def check_config(values: object, place: str) -> RunConfig:
    """Check values; raises ConfigError, naming the place and each key at fault."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        lines = [
            f"  - {'.'.join(str(step) for step in one['loc'])}: {one['msg']}"
            + ("" if one["type"] == "extra_forbidden" else f", found {one['input']!r}")
            for one in error.errors(include_url=False)
        ]
        raise ConfigError(
            f"{place}: cannot be used\n" + "\n".join(lines) + "\n"
            "see `python -m trainer config` for every key, its range and what it does"
        ) from error
