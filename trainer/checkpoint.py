"""Where a run stands, on disk: tensors and numbers in one safetensors file, never a pickle.

Everything random in a run is drawn from its seed and the number of the step, so no generator's
state has to be kept: a run that goes on from a checkpoint takes the very steps it would have.
"""

import os
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from json import dumps, loads
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from index.errors import TrainingError
from index.fsio import sync_folder

TensorGroups = dict[str, dict[str, Tensor]]  # group -> name -> tensor


@dataclass
class Progress:
    """How far a run has come; all of it plain json.

    epoch, batch  the next batch to take
    step          batches taken so far, over all epochs
    loss_sum      over the epoch's batches so far
    curve         one row per finished epoch: loss, validation recall@50, seconds
    cluster_maps  those that a sampler swapped to, in order; see `SwappableSampler`
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best_recall: float = -1.0
    best_epoch: int = -1
    curve: list[dict[str, float]] = field(default_factory=list)
    cluster_maps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def stale_epochs(self) -> int:
        """Return how many epochs have passed since the best one."""
        return len(self.curve) - 1 - self.best_epoch


@dataclass(frozen=True)
class Checkpoint:
    """One file, replaced whole; `run_key` tells whose: same data, configuration and seed."""

    path: Path
    run_key: str

    def save(self, groups: TensorGroups, progress: Progress) -> None:
        """Replace the file in one atomic step; raises OSError if the disk refuses."""
        folder = self.path.with_suffix(f".{os.getpid()}")  # safetensors adds a file of its own
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / self.path.name
        about = {"run_key": self.run_key, "progress": dumps(asdict(progress))}
        tensors = {
            f"{group}/{name}": one.contiguous()
            for group, named in groups.items()
            for name, one in named.items()
        }
        try:
            save_file(tensors, beside, about)
        except SafetensorError as error:  # how it tells of a full disk
            rmtree(folder)
            raise OSError(f"{self.path}: cannot be written ({error})") from error
        with beside.open("rb") as stream:
            os.fsync(stream.fileno())
        beside.replace(self.path)
        rmtree(folder)
        sync_folder(self.path.parent)

    def load(self) -> tuple[TensorGroups, Progress] | None:
        """Return what was saved, or None where there is nothing of this run.

        Raises TrainingError if the file cannot be read.
        """
        if not self.path.exists():
            return None
        groups: TensorGroups = defaultdict(dict)
        try:
            with safe_open(self.path, framework="pt") as file:
                about = file.metadata()
                if about["run_key"] != self.run_key:
                    return None
                for key in file.keys():  # noqa: SIM118  # not a dict
                    group, _, name = key.partition("/")
                    groups[group][name] = file.get_tensor(key)
            return groups, Progress(**loads(about["progress"]))
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise TrainingError(
                f"{self.path}: cannot be read as a checkpoint ({error}); "
                "remove it to begin the run anew"
            ) from error

    def remove(self) -> None:
        """Forget the run: it is finished. What killed saves left goes too."""
        self.path.unlink(missing_ok=True)
        for folder in self.path.parent.glob(f"{self.path.stem}.*"):
            rmtree(folder)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state, named NUMBER OF THE PARAMETER/NAME."""
    return {
        f"{number}/{name}": value
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for key, value in tensors.items():
        number, name = key.split("/")
        state[int(number)][name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
