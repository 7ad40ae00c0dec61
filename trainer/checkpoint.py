"""Checkpoint of a training run: tensors and progress in one safetensors file, no pickle.

All randomness derives from the seed and the step number, so no generator state is stored: a
resumed run takes exactly the steps that an uninterrupted one would.
"""

import os
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from json import dumps, loads
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from index.errors import TrainingError
from index.fsio import sync_folder
from trainer.distributed import broadcast_tensors, on_main_rank
from trainer.tensor_file import save_tensors

TensorGroups = dict[str, dict[str, Tensor]]  # group -> name -> tensor


@dataclass
class Progress:
    """Progress of a run, JSON-serialisable.

    Attributes:
        epoch: current epoch, from 0.
        batch: next batch within the epoch.
        step: batches processed so far, over all epochs.
        loss_sum: sum of the losses of the current epoch.
        best_recall: best validation recall@50 so far.
        best_epoch: epoch of `best_recall`.
        curve: loss, validation recall@50 and seconds of each finished epoch.
        hardness: step, and mean scores of positives and negatives by source, at intervals.
        cluster_maps: maps that the sampler swapped to, in order; see `SwappableSampler`.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best_recall: float = -1.0
    best_epoch: int = -1
    curve: list[dict[str, float]] = field(default_factory=list)
    hardness: list[dict[str, float]] = field(default_factory=list)
    cluster_maps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def stale_epochs(self) -> int:
        """Number of epochs since the best epoch."""
        return len(self.curve) - 1 - self.best_epoch


class Checkpoint:
    """Checkpoint file of one run, synced to disk by a thread.

    Attributes:
        path: the file.
        run_key: identifies the data, configuration and seed of the run.
    """

    def __init__(self, path: Path, run_key: str) -> None:
        self.path, self.run_key = path, run_key
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    @property
    def map_folder(self) -> Path:
        """Folder of the cluster map that the run built."""
        return self.path.with_suffix(".map")

    @property
    def is_syncing(self) -> bool:
        """Whether the last save has not reached the disk yet."""
        return self._pending is not None and not self._pending.done()

    def save(self, groups: TensorGroups, progress: Progress) -> None:
        """Write the state; a thread then syncs it and replaces the file atomically.

        Raises:
            OSError: this state, or the one saved before, cannot be written.
        """
        self.wait()
        folder = self.path.with_suffix(f".{os.getpid()}")  # safetensors adds a temporary file
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / self.path.name
        metadata = {"run_key": self.run_key, "progress": dumps(asdict(progress))}
        tensors = {
            f"{group}/{name}": tensor
            for group, named in groups.items()
            for name, tensor in named.items()
        }
        try:
            save_tensors(temporary, tensors, metadata)
        except OSError:
            rmtree(folder)
            raise
        self._pending = self._thread.submit(self._replace, temporary)

    def wait(self) -> None:
        """Wait until the last save is on disk; raises OSError if it cannot be written."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def _replace(self, temporary: Path) -> None:
        try:
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(self.path)
            sync_folder(self.path.parent)
        finally:
            rmtree(temporary.parent)

    def load(self) -> tuple[TensorGroups, Progress] | None:
        """Return the saved state, or None if there is no checkpoint of this run.

        Raises:
            TrainingError: the file cannot be read.
        """
        if not self.path.exists():
            return None
        groups: TensorGroups = defaultdict(dict)
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata()
                if metadata["run_key"] != self.run_key:
                    return None
                for key in file.keys():  # noqa: SIM118  # not a dict
                    group, _, name = key.partition("/")
                    groups[group][name] = file.get_tensor(key)
            return groups, Progress(**loads(metadata["progress"]))
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise TrainingError(
                f"{self.path}: found an unreadable checkpoint ({error}), expected a safetensors "
                "file of this run; delete it to start over"
            ) from error

    def describe(self) -> str:
        """Describe what a repeated command would resume from."""
        with suppress(OSError):
            self.wait()
        try:
            with safe_open(self.path, framework="pt") as file:
                progress = Progress(**loads(file.metadata()["progress"]))
        except (SafetensorError, OSError, KeyError, ValueError, TypeError):
            return "no checkpoint was saved; the same command starts again"
        return (
            f"saved up to epoch {progress.epoch + 1}, batch {progress.batch}; "
            "the same command resumes there"
        )

    def remove(self) -> None:
        """Delete the checkpoint, the cluster map, and temporary files of interrupted saves."""
        with suppress(OSError):
            self.wait()
        self.path.unlink(missing_ok=True)
        for folder in self.path.parent.glob(f"{self.path.stem}.*"):
            rmtree(folder)


def broadcast_saved(
    saved: tuple[TensorGroups, Progress] | None,
) -> tuple[TensorGroups, Progress] | None:
    """Return to all ranks what the main rank loaded."""
    progress = on_main_rank(lambda: saved[1] if saved else None)
    if progress is None:
        return None
    loaded = saved[0] if saved else {}
    named = {(group, name): t for group, names in loaded.items() for name, t in names.items()}
    groups: TensorGroups = defaultdict(dict)
    for (group, name), tensor in broadcast_tensors(named).items():
        groups[group][name] = tensor
    return groups, progress


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer state as `PARAMETER NUMBER/NAME` -> tensor."""
    return {
        f"{number}/{name}": value
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load what `optimizer_tensors` returned into the optimizer."""
    state: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for key, value in tensors.items():
        number, name = key.split("/")
        state[int(number)][name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
