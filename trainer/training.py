"""The loop: batches in, trained towers out. It knows no sampler by name."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from index.errors import TrainingError
from trainer.batches import Batch
from trainer.checkpoint import Checkpoint, Progress, group_of, pack, unpack
from trainer.config import TrainingConfig
from trainer.course import Course
from trainer.loss import sampled_softmax
from trainer.samplers.interface import Sampler, Stateful, Swapping
from trainer.step import context_of
from trainer.towers import Towers
from trainer.validation import validation_recall


@dataclass(frozen=True)
class Trained:
    """The best towers of a run by validation recall@50, and how it came to them.

    cluster_maps  those that the sampler swapped to, in order; see `Swapping`
    """

    towers: Towers
    curve: list[dict[str, float]]
    best_epoch: int
    best_recall: float
    steps: int
    cluster_maps: list[dict[str, Any]] = field(default_factory=list)


def train(
    towers: Towers,
    course: Course,
    sampler: Sampler,
    config: TrainingConfig,
    id_dropout: float,
    checkpoint: Checkpoint,
) -> Trained:
    """Train until validation recall@50 has not risen for `patience` epochs.

    Goes on from the checkpoint where there is one of this run. Raises TrainingError where the
    loss is not finite, or exactly 0.
    """
    loop = Loop(towers, course, sampler, config, id_dropout, checkpoint)
    loop.resume()
    progress = loop.progress
    while progress.epoch < config.epochs and progress.stale_epochs < config.patience:
        loop.run_epoch()
    towers.load_state_dict(loop.best)
    return Trained(
        towers,
        progress.curve,
        progress.best_epoch,
        progress.best_recall,
        progress.step,
        progress.cluster_maps,
    )


class Loop:
    """The state that training changes: weights, optimizer, progress, best weights so far."""

    def __init__(
        self,
        towers: Towers,
        course: Course,
        sampler: Sampler,
        config: TrainingConfig,
        id_dropout: float,
        checkpoint: Checkpoint,
    ) -> None:
        self.towers, self.course, self.sampler = towers, course, sampler
        self.config, self.id_dropout, self.checkpoint = config, id_dropout, checkpoint
        self.optimizer = torch.optim.AdamW(
            towers.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.progress = Progress()
        self.best = {name: one.clone() for name, one in towers.state_dict().items()}

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one of this run."""
        saved = self.checkpoint.load()
        if saved is None:
            return
        flat, self.progress = saved
        self.towers.load_state_dict(group_of(flat, "now"))
        self.best = group_of(flat, "best")
        unpack(flat, self.optimizer)
        if isinstance(self.sampler, Stateful):
            self.sampler.load_state(group_of(flat, "sampler"))
        tqdm.write(
            f"going on from epoch {self.progress.epoch + 1}, batch {self.progress.batch}"
        )

    def save(self) -> None:
        """Write the checkpoint."""
        groups = {"now": dict(self.towers.state_dict()), "best": self.best}
        if isinstance(self.sampler, Stateful):
            groups["sampler"] = self.sampler.state()
        self.checkpoint.save(pack(self.optimizer, groups), self.progress)

    def run_epoch(self) -> None:
        """Take the epoch's remaining batches, then measure."""
        progress, batches = self.progress, self.course.batches
        began = saved_at = time.monotonic()
        bar = tqdm(
            total=len(batches.target_positions()),
            initial=progress.batch * batches.batch_size,
            desc=f"epoch {progress.epoch + 1}",
            unit=" examples",
            unit_scale=True,
            mininterval=0.5,
        )
        with bar:
            for batch in batches.epoch(progress.epoch, progress.batch):
                self.swap_map()
                progress.loss_sum += self.take_step(batch)
                progress.batch += 1
                progress.step += 1
                bar.update(len(batch.user_rows))
                bar.set_postfix(loss=f"{progress.loss_sum / progress.batch:.4f}", refresh=False)
                if time.monotonic() - saved_at >= self.config.checkpoint_s:
                    self.save()
                    saved_at = time.monotonic()
        self.finish_epoch(time.monotonic() - began)

    def finish_epoch(self, seconds: float) -> None:
        """Measure on validation, keep the weights if they are the best, and move on."""
        progress = self.progress
        loss = progress.loss_sum / max(1, progress.batch)
        if loss == 0:
            raise TrainingError(
                f"epoch {progress.epoch + 1}: the loss is exactly 0, expected above; every "
                "negative was masked, or batches hold one item only: use a larger batch_size"
            )
        vectors = self.item_vectors()
        if not torch.isfinite(vectors).all():
            raise TrainingError(
                f"epoch {progress.epoch + 1}: its last step left item vectors that are not "
                f"finite; lower learning_rate (now {self.config.learning_rate}) or raise "
                f"temperature (now {self.config.temperature})"
            )
        recall = validation_recall(self.towers.user, vectors, self.course.validation)
        progress.curve.append({"loss": loss, "recall@50": recall, "seconds": seconds})
        if recall > progress.best_recall:
            progress.best_recall, progress.best_epoch = recall, progress.epoch
            self.best = {name: one.clone() for name, one in self.towers.state_dict().items()}
        tqdm.write(
            f"epoch {progress.epoch + 1}: loss {loss:.4f}, validation recall@50 {recall:.4f}"
            + (" (best so far)" if progress.best_epoch == progress.epoch else "")
        )
        progress.epoch, progress.batch, progress.loss_sum = progress.epoch + 1, 0, 0.0
        self.save()

    def item_vectors(self) -> Tensor:
        """Return all item vectors as they would be published now; [items, width]."""
        return self.course.catalogue.encode_all(self.towers.item)

    def swap_map(self) -> None:
        """Let a sampler that follows a map take the newest: here, and nowhere within a step."""
        if not isinstance(self.sampler, Swapping):
            return
        told = self.sampler.swap(self.progress.step)
        if told is not None:
            self.progress.cluster_maps.append(told)
            tqdm.write(
                f"step {told['from_step']}: negatives come from cluster map "
                f"{told['published_version']} ({told['source']})"
            )

    def take_step(self, batch: Batch) -> float:
        """Encode, draw negatives, descend; return the loss.

        Raises TrainingError if the loss is not finite; the weights are as before the step.
        """
        loss = self.loss_of(batch)
        value = float(loss.item())
        if not math.isfinite(value):
            raise TrainingError(
                f"epoch {self.progress.epoch + 1}, batch {self.progress.batch + 1}: the loss "
                f"is {value}, expected a finite number; lower learning_rate "
                f"(now {self.config.learning_rate}) or raise temperature "
                f"(now {self.config.temperature})"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimizer.step()
        return value

    def loss_of(self, batch: Batch) -> Tensor:
        """Compute the loss of one batch."""
        context = context_of(
            self.course, self.towers, batch, self.progress.step, self.id_dropout
        )
        return sampled_softmax(
            context.queries,
            context.positives,
            self.sampler(context),
            self.config.temperature,
            self.config.log_q_share,
        )
