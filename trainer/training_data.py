"""Training data of a run: batch loader, item features, seen items and validation cases.

Ordered data: the history of a target is the items before it; a user's first item is no target.
Unordered data: the history is a seeded sample of the user's other items, resampled each epoch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.arrays import Rows
from index.cluster_layout import Doubles
from index.errors import TrainingError
from trainer.config import RunConfig, TrainingConfig
from trainer.data.dataset import Dataset
from trainer.data.interactions import (
    TRAIN,
    VALID,
    Cases,
    ItemLists,
    build_cases,
    build_histories,
    sample_cases,
    training_counts,
)
from trainer.distributed import cuda_device
from trainer.item_features import ItemFeatures, build_item_features
from trainer.seen_items import SeenItems, build_seen_items

MAX_VALIDATION_SCORES = 40_000_000_000  # cases x items: 5 minutes an epoch on a core
MIN_VALIDATION_CASES = 1_000  # whatever the size of the catalogue
SHUFFLED_USERS = 65_536  # users whose histories are shuffled at once


@dataclass(frozen=True)
class TrainingBatch:
    """Targets and histories of one training step.

    Attributes:
        user_rows: [batch].
        positive_rows: [batch], the targets.
        history_rows: [batch, length], newest at position 0; row 0 where masked.
        mask: [batch, length], True where there is an item.
    """

    user_rows: Rows
    positive_rows: Rows
    history_rows: Rows
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class BatchLoader:
    """Loader of training batches, in a seeded order per epoch."""

    histories: ItemLists
    is_ordered: bool
    batch_size: int
    history_length: int
    seed: int

    @cached_property
    def target_positions(self) -> NDArray[np.signedinteger]:
        """Positions of the targets in `histories.item_rows`, as the smallest sufficient type."""
        offsets = self.histories.offsets
        lengths = np.diff(offsets)
        is_target = np.repeat(lengths > 1, lengths)
        if self.is_ordered:
            is_target[offsets[:-1][lengths > 0]] = False
        return np.arange(len(is_target), dtype=np.min_scalar_type(-len(is_target)))[is_target]

    def target_counts(self, num_items: int) -> NDArray[np.int64]:
        """Count the targets of each item in one epoch; [items]."""
        targets = self.histories.item_rows[self.target_positions]
        return np.bincount(targets, minlength=num_items).astype(np.int64)

    def appearances(self, num_items: int) -> NDArray[np.int64]:
        """Count the examples of one epoch with each item as target or in the history; [items]."""
        offsets = self.histories.offsets
        counts = np.zeros(num_items, np.int64)
        for first in range(0, len(offsets) - 1, SHUFFLED_USERS):
            ends = offsets[first : first + SHUFFLED_USERS + 1]
            lengths = np.diff(ends)
            rows = self.histories.item_rows[ends[0] : ends[-1]]
            others = np.repeat(lengths - 1, lengths)
            later = others  # examples of the user that can have the item in their histories
            is_target = others > 0
            if self.is_ordered:
                position = np.arange(len(rows)) - np.repeat(ends[:-1] - ends[0], lengths)
                later, is_target = others - position, position > 0
            times = np.minimum(later, self.history_length) + is_target
            counts += np.bincount(rows, weights=times, minlength=num_items).astype(np.int64)
        return counts

    def batches_per_epoch(self) -> int:
        """Return the number of batches per epoch, without a last batch of a single target."""
        count = len(self.target_positions)
        return count // self.batch_size + (count % self.batch_size > 1)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[TrainingBatch]:
        """Yield the batches of an epoch from batch `first`; deterministic for a seed."""
        rng = np.random.default_rng([self.seed, epoch])
        histories = self.histories if self.is_ordered else shuffle_histories(self.histories, rng)
        order = rng.permutation(self.target_positions)
        for number in range(first, self.batches_per_epoch()):
            chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield self._batch(histories, chosen)

    def _batch(self, histories: ItemLists, positions: NDArray[np.signedinteger]) -> TrainingBatch:
        positions = positions.astype(np.int64)
        users = np.searchsorted(histories.offsets, positions, side="right") - 1
        starts, ends = histories.offsets[users], histories.offsets[users + 1]
        steps = np.arange(self.history_length)
        if self.is_ordered:
            indices = positions[:, None] - 1 - steps  # [batch, length]
            mask = indices >= starts[:, None]
        else:
            lengths = (ends - starts)[:, None]
            indices = starts[:, None] + (positions - starts)[:, None] + 1 + steps
            indices = starts[:, None] + (indices - starts[:, None]) % lengths
            mask = steps < lengths - 1
        length = max(1, int(mask.sum(axis=1).max()))
        indices, mask = indices[:, :length], mask[:, :length]
        rows = histories.item_rows[np.where(mask, indices, 0)]
        return TrainingBatch(
            user_rows=users.astype(np.int32),
            positive_rows=histories.item_rows[positions],
            history_rows=np.where(mask, rows, 0).astype(np.int32),
            mask=mask,
        )


@dataclass(frozen=True)
class TrainingData:
    """Training and validation data of a run.

    Attributes:
        features: features of all items.
        loader: loader of training batches.
        seen: seen items of each user in training.
        target_share: [items] float32, each item's share of all training targets.
        validation: validation cases; none in a refit.
    """

    features: ItemFeatures
    loader: BatchLoader
    seen: SeenItems
    target_share: Tensor
    validation: Cases

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.features.id_rows.device

    @cached_property
    def appearance_share(self) -> NDArray[np.float32]:
        """Share of the training examples with each item as target or in the history; [items]."""
        counts = self.loader.appearances(len(self.target_share))
        return (counts / len(self.loader.target_positions)).astype(np.float32)

    def in_batch_probability(self, batch: int, rows: Rows) -> Doubles:
        """Return the probability that a batch of this size has an item in an example; [rows]."""
        return appearance_probability(self.appearance_share[rows].astype(np.float64), batch)


def appearance_probability(share: Doubles, batch: int) -> Doubles:
    """Return the probability that a batch has an item, of its share of the examples; [items]."""
    probability: Doubles = -np.expm1(batch * np.log1p(-np.minimum(share, 1 - 1e-9)))
    return probability


def build_training_data(data: Dataset, config: RunConfig) -> TrainingData:
    """Build the training data of a run.

    Raises:
        TrainingError: there are fewer than two targets, or the device is unavailable.
    """
    device = choose_device(config.training)
    num_users, num_items = len(data.user_ids), len(data.item_ids)
    train_histories = build_histories(data.interactions, (TRAIN,), num_users)
    loader = BatchLoader(
        train_histories,
        data.interactions.is_ordered,
        config.training.batch_size,
        config.towers.history_length,
        config.seed,
    )
    targets = loader.target_counts(num_items)
    if targets.sum() < 2:
        raise TrainingError(
            f"training part: found {targets.sum()} targets, expected at least 2; add users with "
            "two or more training interactions, or choose another split"
        )
    counts = training_counts(data.interactions, num_items)
    return TrainingData(
        features=build_item_features(data.modalities, counts, device),
        loader=loader,
        seen=build_seen_items(train_histories, num_items, device),
        target_share=torch.from_numpy((targets / targets.sum()).astype(np.float32)).to(device),
        validation=sample_validation_cases(data, config),
    )


def sample_validation_cases(data: Dataset, config: RunConfig) -> Cases:
    """Sample the validation cases of a run; none if all interactions are for training.

    Each case scores all items, so a catalogue above four million items gets fewer than 10,000.
    """
    cases = build_cases(data.interactions, VALID, len(data.user_ids))
    rng = np.random.default_rng([config.seed, VALID])
    limit = max(MIN_VALIDATION_CASES, MAX_VALIDATION_SCORES // len(data.item_ids))
    return sample_cases(cases, min(config.training.validation_cases, limit), rng)


def choose_device(config: TrainingConfig) -> torch.device:
    """Return this rank's device to train on; raises TrainingError if CUDA is unavailable."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "training.device: found cuda, but torch detects no CUDA device; install a CUDA build "
            "of torch (see README), or set device to auto"
        )
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return cuda_device()


def shuffle_histories(
    histories: ItemLists, rng: np.random.Generator, users_at_once: int = SHUFFLED_USERS
) -> ItemLists:
    """Shuffle the items within each history; `users_at_once` bounds the memory."""
    offsets, shuffled = histories.offsets, np.empty_like(histories.item_rows)
    for first in range(0, len(offsets) - 1, users_at_once):
        bounds = offsets[first : first + users_at_once + 1]
        users = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        order = np.lexsort((rng.random(len(users)), users))
        shuffled[bounds[0] : bounds[-1]] = histories.item_rows[bounds[0] : bounds[-1]][order]
    return ItemLists(offsets, shuffled)
