"""Refit: training on all interactions for the epochs that validation chose, without validation."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from index.errors import TrainingError
from index.fsio import write_atomic
from trainer.checkpoint import Checkpoint, Progress
from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.interactions import TRAIN


@dataclass(frozen=True)
class Evaluated:
    """Results of the run before a refit: its evaluation report and its progress."""

    report: dict[str, Any]
    progress: Progress

    @property
    def epochs(self) -> int:
        """Number of epochs to refit for: up to the best one by validation."""
        return self.progress.best_epoch + 1


def evaluated_path(checkpoint: Checkpoint, config: RunConfig) -> Path:
    """Return the file beside the checkpoint that keeps the results of this configuration."""
    text = checkpoint.run_key + config.evaluation.model_dump_json()
    return checkpoint.path.with_name(f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json")


def save_evaluated(path: Path, evaluated: Evaluated) -> None:
    """Write the results atomically."""
    write_atomic(path, [json.dumps(asdict(evaluated)).encode()])


def load_evaluated(path: Path) -> Evaluated | None:
    """Load the results, None if there are none; raises TrainingError if they are damaged."""
    try:
        values = json.loads(path.read_bytes())
        return Evaluated(values["report"], Progress(**values["progress"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path}: cannot be read ({error}), expected the evaluation of this run; delete it to "
            "start over"
        ) from error


def refit_checkpoint(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint of the refit that follows the run of another checkpoint."""
    key = hashlib.sha256(f"refit {checkpoint.run_key}".encode()).hexdigest()
    return Checkpoint(checkpoint.path.with_name(f"{key[:16]}.safetensors"), key)


def refit_config(config: RunConfig, epochs: int) -> RunConfig:
    """Return the configuration with another number of epochs."""
    training = config.training.model_copy(update={"epochs": epochs})
    return config.model_copy(update={"training": training})


def use_all_interactions(data: Dataset) -> Dataset:
    """Return the dataset with all interactions in the training part."""
    parts = np.full_like(data.interactions.parts, TRAIN)
    return replace(data, interactions=replace(data.interactions, parts=parts))
