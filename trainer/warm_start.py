"""Warm start: training state of a published bundle, joined to a dataset by item id.

The state is that of the evaluated run, also if the bundle was refitted: it has not been trained on
the interactions that were held out, some of which are held out again in the next run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from index.bundle.manifest import Manifest, read_manifest
from index.bundle.registry import BundleRegistry
from index.errors import ConfigError, InvalidBundleError, NoBundleError
from index.fsio import sha256_of, sync_folder
from index.ids import files_of, open_id_table
from trainer.checkpoint import Checkpoint, Progress, restore_optimizer
from trainer.config import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.interactions import training_counts
from trainer.towers import Towers

ID_TABLE = "item.ids.weight"
GROUPS = ("best", "dense_optimizer", "id_optimizer")  # of a checkpoint
STATE_KEY = "training state"  # of any run
CHUNK = 1 << 20  # rows copied at once, to bound memory


@dataclass(frozen=True)
class WarmStart:
    """Published bundle that a run starts from, and its training state."""

    folder: Path
    manifest: Manifest
    state: Path

    def restore(
        self, warm_ids: Sequence[str], towers: Towers, optimizers: dict[str, torch.optim.Optimizer]
    ) -> None:
        """Load weights and optimizer state into new ones.

        An item that the bundle was not trained with keeps its initial id embedding.

        Args:
            warm_ids: item of each row of the id table.
            towers: towers to load into.
            optimizers: their optimizers.

        Raises:
            InvalidBundleError: a file changed since it was published.
        """
        self._require_intact()
        saved = Checkpoint(self.state, STATE_KEY).load()
        assert saved is not None  # every state has this key
        groups, _ = saved
        weights, table = groups["best"], towers.item.ids.weight.data
        items, warm = open_id_table(self.folder, "item_ids"), groups["items"]["warm"].numpy()
        old_rows = np.full(len(items) + 1, -1)  # of the old id table; the last is of unknown items
        old_rows[warm] = np.arange(len(warm))
        rows = old_rows[items.rows_of(warm_ids)]
        copy_rows(weights[ID_TABLE], table, rows)
        towers.load_state_dict(weights | {ID_TABLE: table})
        for name, old in groups["id_optimizer"].items():
            if old.ndim:  # not the step counter
                joined = torch.zeros_like(table)
                copy_rows(old, joined, rows)
                groups["id_optimizer"][name] = joined
        for name, optimizer in optimizers.items():
            restore_optimizer(optimizer, groups[name])
        known = int((rows >= 0).sum())
        tqdm.write(
            f"warm start from {self.folder.name}: {known:,} warm items known, "
            f"{len(rows) - known:,} new, {len(warm) - known:,} dropped"
        )

    def _require_intact(self) -> None:
        files = {
            self.folder / name: self.manifest.files[name].sha256 for name in files_of("item_ids")
        }
        files[self.state] = self.manifest.run["training"]["state"]["sha256"]
        if changed := [path for path, digest in files.items() if sha256_of(path) != digest]:
            faults = [f"{path}: found another sha256 than was published" for path in changed]
            raise InvalidBundleError(str(self.folder), [*faults, "run without --warm-from"])


def copy_rows(old: Tensor, new: Tensor, rows: NDArray[np.integer]) -> None:
    """Copy row `rows[i]` of an old table to row i of a new one unless it is -1, and the last."""
    for first in range(0, len(rows), CHUNK):
        chosen = torch.from_numpy(rows[first : first + CHUNK].astype(np.int64))
        known = (chosen >= 0).nonzero().squeeze(1)
        new[(first + known).to(new.device)] = old[chosen[known]].to(new.device)
    new[-1] = old[-1]  # the unknown item


def open_warm_start(registry: BundleRegistry, version: str) -> WarmStart:
    """Open a version, or `current`; raises ConfigError if it cannot be trained further."""
    try:
        folder = registry.current() if version == "current" else registry.path_of(version)
    except NoBundleError as error:
        raise ConfigError(f"run --warm-from: {error}") from error
    manifest = read_manifest(folder)
    state = manifest.run.get("training", {}).get("state")
    path = registry.state_path(state["sha256"]) if state else None
    if path is None or not path.is_file():
        raise ConfigError(
            f"run --warm-from: found no training state of {folder}, expected a bundle that was "
            "trained with bundle.training_state; run once without --warm-from"
        )
    return WarmStart(folder, manifest, path)


def require_compatible(warm_start: WarmStart, config: RunConfig, data: Dataset) -> None:
    """Raise ConfigError if the weights do not fit the configuration and the dataset."""
    manifest, towers = warm_start.manifest, config.towers
    widths = {name: rows.shape[1] for name, rows in data.modalities.items()}
    facts = (
        ("towers.embedding_dim", towers.embedding_dim, manifest.embedding_dim),
        ("towers.history_length", towers.history_length, manifest.history_length),
        ("modalities", widths, manifest.modalities),
        ("ordered interactions", data.interactions.is_ordered, manifest.dataset.is_ordered),
    )
    faults = [f"{what}: found {now}, expected {then}" for what, now, then in facts if now != then]
    if faults:
        raise ConfigError(
            f"run --warm-from: {warm_start.folder.name} does not fit this run; "
            f"{'; '.join(faults)}; correct that, or run without --warm-from"
        )


def list_warm_rows(data: Dataset) -> NDArray[np.int64]:
    """Return the item of each row of the id table; [warm items]."""
    return np.flatnonzero(training_counts(data.interactions, len(data.item_ids)))


def save_training_state(
    checkpoint: Checkpoint, registry: BundleRegistry, data: Dataset
) -> dict[str, Any]:
    """Copy weights and optimizer state of a finished run from its checkpoint beside the bundles.

    Reading and writing go through memory maps, so the size of the state does not matter.

    Returns:
        Its `sha256` and `size_bytes`, for the manifest.

    Raises:
        OSError: the disk is full.
    """
    checkpoint.wait()
    saved = checkpoint.load()
    assert saved is not None  # each epoch ends with a checkpoint
    state = Checkpoint(registry.state_path(checkpoint.run_key), STATE_KEY)
    groups = {name: saved[0][name] for name in GROUPS}
    groups["items"] = {"warm": torch.from_numpy(list_warm_rows(data))}
    state.save(groups, Progress())
    state.wait()
    digest, size = sha256_of(state.path), state.path.stat().st_size
    state.path.replace(registry.state_path(digest))
    sync_folder(state.path.parent)
    return {"sha256": digest, "size_bytes": size}
