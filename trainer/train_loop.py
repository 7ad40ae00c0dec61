"""Training loop with validation, early stopping and checkpoints, for any sampler."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from index.errors import TrainingError
from trainer.checkpoint import (
    Checkpoint,
    Progress,
    TensorGroups,
    broadcast_saved,
    optimizer_tensors,
    restore_optimizer,
)
from trainer.config import RunConfig, TrainingConfig
from trainer.distributed import is_main_rank, num_ranks, on_main_rank, sum_gradients, sum_over_ranks
from trainer.lazy_adam import LazyAdam
from trainer.loss import BatchLoss
from trainer.memory import release_freed_memory
from trainer.progress import progress_bar
from trainer.samplers.base import Sampler, StatefulSampler, SwappableSampler
from trainer.towers import Towers, build_towers
from trainer.training_data import TrainingBatch, TrainingData
from trainer.validation import validation_recall

Restore = Callable[[Towers, dict[str, torch.optim.Optimizer]], None]  # into new ones

MAX_SAVING_SHARE = 0.05  # of the time, for checkpoints within an epoch


@dataclass(frozen=True)
class TrainedTowers:
    """Best towers of a run by validation recall@50, and its progress."""

    towers: Towers
    progress: Progress


def train(
    data: TrainingData,
    sampler: Sampler,
    config: RunConfig,
    checkpoint: Checkpoint | None = None,
    warm_start: Restore | None = None,
) -> TrainedTowers:
    """Train new towers until validation recall@50 has not improved for `patience` epochs.

    Without validation cases, all epochs are trained and the last one counts as the best.

    Args:
        data: training data.
        sampler: negative sampler.
        config: configuration of the run.
        checkpoint: checkpoint to resume from and to write; None disables checkpoints. With
            several ranks, that of the main rank counts and the others pass None.
        warm_start: loads the initial weights and optimizer state, unless the run is resumed;
            needed on the main rank only.

    Raises:
        TrainingError: the loss is not finite, or exactly 0.
    """
    loop = TrainLoop(data, sampler, config, checkpoint)
    if not loop.resume():
        loop.start_from(warm_start)
    progress, limits = loop.progress, config.training
    try:
        while progress.epoch < limits.epochs and progress.stale_epochs < limits.patience:
            loop.run_epoch()
    finally:
        if checkpoint is not None:
            checkpoint.wait()
    loop.towers.load_state_dict(loop.best)
    return TrainedTowers(loop.towers, progress)


class TrainLoop:
    """Training state: weights, optimizers, progress and the best weights so far."""

    def __init__(
        self,
        data: TrainingData,
        sampler: Sampler,
        config: RunConfig,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.data, self.sampler, self.checkpoint = data, sampler, checkpoint
        self.config = config.training
        self.towers = build_run_towers(data, config)
        self.loss = BatchLoss(self.towers, data, sampler, config)
        self.optimizers = build_optimizers(self.towers, self.config)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}  # after the first epoch
        self._save_at = 0.0

    def resume(self) -> bool:
        """Resume from the checkpoint of the main rank; return whether there is one of this run."""
        if not self._load(self.checkpoint.load() if self.checkpoint else None):
            return False
        progress = self.progress
        tqdm.write(f"resuming from epoch {progress.epoch + 1}, batch {progress.batch}")
        return True

    def start_from(self, warm_start: Restore | None) -> None:
        """Load initial weights and optimizer state on the main rank, if any, and share them."""
        if warm_start is not None:
            warm_start(self.towers, self.optimizers)
        if num_ranks() > 1:
            self._load((self._state(), self.progress) if warm_start else None)

    def save(self) -> None:
        """Save the checkpoint."""
        if self.checkpoint is not None:
            self.checkpoint.save(self._state(), self.progress)

    def _state(self) -> TensorGroups:
        """Return all tensors of a checkpoint."""
        groups = {"current": self.towers.state_dict(), "best": self.best}
        for name, optimizer in self.optimizers.items():
            groups[name] = optimizer_tensors(optimizer)
        if isinstance(self.sampler, StatefulSampler):
            groups["sampler"] = self.sampler.state_dict()
        return groups

    def _load(self, saved: tuple[TensorGroups, Progress] | None) -> bool:
        """Load what the main rank passes on all ranks; return whether it passes a state."""
        shared = broadcast_saved(saved)
        if shared is None:
            return False
        groups, self.progress = shared
        self.towers.load_state_dict(groups["current"])
        self.best = groups["best"]
        for name, optimizer in self.optimizers.items():
            restore_optimizer(optimizer, groups[name])
        if isinstance(self.sampler, StatefulSampler):
            self.sampler.load_state_dict(groups["sampler"])
        return True

    def save_if_due(self) -> None:
        """Save the checkpoint at intervals of which saving takes at most 5 %; 0: at each step."""
        begin, interval_s = time.monotonic(), self.config.checkpoint_interval_s
        if self.checkpoint is None or begin < self._save_at:
            return
        if interval_s and self.checkpoint.is_syncing:
            return
        self.save()
        if interval_s:
            end = time.monotonic()
            self._save_at = end + max(interval_s, (end - begin) / MAX_SAVING_SHARE)

    def run_epoch(self) -> None:
        """Train on the remaining batches of the epoch, then validate."""
        progress, loader = self.progress, self.data.loader
        started_at = time.monotonic()
        self._save_at = started_at + self.config.checkpoint_interval_s
        bar = progress_bar(
            total=len(loader.target_positions),
            initial=progress.batch * loader.batch_size,
            desc=f"epoch {progress.epoch + 1}",
            unit=" examples",
            unit_scale=True,
            disable=not is_main_rank(),
        )
        with bar:
            for batch in loader.epoch(progress.epoch, progress.batch):
                self.swap_map()
                progress.loss_sum += self.take_step(batch)
                progress.batch += 1
                bar.update(len(batch.user_rows))
                bar.set_postfix(loss=f"{progress.loss_sum / progress.batch:.4f}", refresh=False)
                self.save_if_due()
        self.finish_epoch(time.monotonic() - started_at)

    def swap_map(self) -> None:
        """Swap to the newest cluster map, if the sampler follows one; only between steps."""
        if not isinstance(self.sampler, SwappableSampler):
            return
        swapped = self.sampler.swap(self.progress.step)
        if swapped is not None:
            self.progress.cluster_maps.append(swapped)
            tqdm.write(
                f"step {swapped['from_step']}: negatives come from cluster map "
                f"{swapped['published_version']} ({swapped['source']})"
            )

    def take_step(self, batch: TrainingBatch) -> float:
        """Update the weights with one batch and return its loss.

        Raises:
            TrainingError: the loss is not finite; the weights are unchanged.
        """
        loss = self.loss(batch, self.progress.step)
        value = float(sum_over_ranks(loss).item())
        if not math.isfinite(value):
            number = self.progress.batch + 1
            raise self._diverged(f", batch {number}: the loss is {value}, expected a finite number")
        self.towers.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        sum_gradients(self.towers.parameters())
        for optimizer in self.optimizers.values():
            optimizer.step()
        if self.loss.hardness is not None:
            self.progress.hardness.append({"step": self.progress.step, **self.loss.hardness})
        self.progress.step += 1
        return value

    def finish_epoch(self, seconds: float) -> None:
        """Validate, keep the weights if they are the best, and start the next epoch."""
        progress = self.progress
        loss = progress.loss_sum / max(1, progress.batch)
        if loss == 0:
            raise TrainingError(
                f"epoch {progress.epoch + 1}: the loss is exactly 0, expected a positive number; "
                "all negatives are masked or batches contain a single item: use a larger batch_size"
            )
        release_freed_memory()  # the best weights are copied below
        recall = self.validate()
        curve = {"loss": loss, "recall@50": recall, "seconds": seconds}
        progress.curve.append({name: value for name, value in curve.items() if value is not None})
        is_best = recall is None or recall > progress.best_recall
        if is_best:
            progress.best_recall, progress.best_epoch = recall or 0.0, progress.epoch
            self.best = {}  # freed before the copy
            self.best = {name: weight.clone() for name, weight in self.towers.state_dict().items()}
        line = f"epoch {progress.epoch + 1}: loss {loss:.4f}"
        if recall is not None:
            line += f", validation recall@50 {recall:.4f}{' (best so far)' if is_best else ''}"
        tqdm.write(line)
        progress.epoch, progress.batch, progress.loss_sum = progress.epoch + 1, 0, 0.0
        self.save()

    def validate(self) -> float | None:
        """Return the validation recall@50; None without validation cases."""
        if not len(self.data.validation.user_rows):
            return None
        encode = partial(self.data.features.encode, self.towers.item)
        try:
            return on_main_rank(
                lambda: validation_recall(
                    self.towers.user, encode, len(self.data.features), self.data.validation
                )
            )
        except FloatingPointError as error:
            raise self._diverged(f": {error}, expected finite numbers") from error

    def _diverged(self, problem: str) -> TrainingError:
        return TrainingError(
            f"epoch {self.progress.epoch + 1}{problem}; lower learning_rate (now "
            f"{self.config.learning_rate}) or raise temperature (now {self.config.temperature})"
        )


def build_run_towers(data: TrainingData, config: RunConfig) -> Towers:
    """Build the towers of a run with seeded weights, on its device."""
    means = {name: mean.cpu() for name, mean in data.features.means().items()}
    is_ordered = data.loader.is_ordered
    towers = build_towers(data.features.num_ids, means, config.towers, is_ordered, config.seed)
    return towers.to(data.device)


def build_optimizers(towers: Towers, config: TrainingConfig) -> dict[str, torch.optim.Optimizer]:
    """Build the optimizers of a run: one of the id table, one of all other weights."""
    table = towers.item.ids.weight
    dense = [weight for weight in towers.parameters() if weight is not table]
    rate, decay = config.learning_rate, config.dense_weight_decay
    return {
        "dense_optimizer": torch.optim.AdamW(dense, lr=rate, weight_decay=decay),
        "id_optimizer": LazyAdam([table], lr=rate),
    }
