"""What a run trains on: the dataset, laid out as the loop wants it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from index.errors import TrainingError
from trainer.batches import Batches
from trainer.catalogue import Catalogue, build_catalogue, training_counts
from trainer.config import RunConfig, TrainingConfig
from trainer.data.dataset import Dataset
from trainer.data.histories import Cases, cases, histories, some_cases
from trainer.data.interactions import TRAIN, VALID
from trainer.known import KnownPositives, known_positives
from trainer.towers import Towers, build_towers


@dataclass(frozen=True)
class Course:
    """What a run trains on, and what it is measured by.

    target_share  [items]  float32, each item's share of all training targets
    """

    catalogue: Catalogue
    batches: Batches
    known: KnownPositives
    target_share: Tensor
    validation: Cases

    @property
    def device(self) -> torch.device:
        """Return where the tensors are."""
        return self.catalogue.id_rows.device


def prepare(data: Dataset, config: RunConfig) -> Course:
    """Lay the dataset out for training."""
    device = choose_device(config.training)
    user_count, item_count = len(data.user_ids), len(data.item_ids)
    train_histories = histories(data.interactions, (TRAIN,), user_count)
    batches = Batches(
        train_histories,
        data.interactions.is_ordered,
        config.training.batch_size,
        config.towers.history_length,
        config.seed,
    )
    targets = batches.target_counts(item_count)
    if targets.sum() < 2:
        raise TrainingError(
            f"the training part has {targets.sum()} targets, expected at least 2; a target "
            "needs a user with two training interactions: bring more, or another split"
        )
    rng = np.random.default_rng([config.seed, VALID])
    validation = cases(data.interactions, VALID, user_count)
    return Course(
        catalogue=build_catalogue(data.modalities, training_counts(data), device),
        batches=batches,
        known=known_positives(train_histories, item_count, device),
        target_share=torch.from_numpy((targets / targets.sum()).astype(np.float32)).to(device),
        validation=some_cases(validation, config.training.validation_cases, rng),
    )


def fresh_towers(course: Course, data: Dataset, config: RunConfig) -> Towers:
    """Build both towers for a course, where its tensors are."""
    return build_towers(
        len(course.catalogue),
        {name: mean.cpu() for name, mean in course.catalogue.means().items()},
        config.towers,
        data.interactions.is_ordered,
        config.seed,
    ).to(course.device)


def choose_device(config: TrainingConfig) -> torch.device:
    """Return the device to train on; raises TrainingError for a CUDA that is not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "training.device is cuda, but torch sees no CUDA device; install a CUDA build of "
            "torch (see README), or set device to auto"
        )
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")
