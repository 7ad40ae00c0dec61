"""Input features of the item tower, gathered per batch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.arrays import Features
from trainer.towers import ItemTower

CHUNK = 16_384  # items per forward pass of `encode_all`
DEVICE_BYTES = 2**30  # raw features that are kept on a GPU; more are gathered in main memory


@dataclass(frozen=True)
class ItemFeatures:
    """Raw features, modality presence and id rows of all items.

    Attributes:
        features: modality -> [items, raw dim], float16 or float32, NaN where missing; on the
            device if small, else in main memory, possibly memory-mapped.
        presence: [items, modalities] bool.
        id_rows: [items] int64, row of each warm item in the id table; `num_ids`, the
            unknown-item row, for cold items.
        num_ids: warm items.
    """

    features: dict[str, Tensor]
    presence: Tensor
    id_rows: Tensor
    num_ids: int

    def __len__(self) -> int:
        return len(self.id_rows)

    def means(self) -> dict[str, Tensor]:
        """Return the mean raw feature of each modality over the items that have it."""
        means = {}
        for column, (name, values) in enumerate(self.features.items()):
            total = sum(chunk.double().nansum(dim=0) for chunk in torch.split(values, CHUNK))
            count = self.presence[:, column].sum().clamp(min=1).to(values.device)
            means[name] = (total / count).float()
        return means

    def gather(self, rows: Tensor) -> list[Tensor]:
        """Return the features of item rows [n], 0 where missing; one [n, raw dim] per modality."""
        return [
            values.index_select(0, rows.to(values.device)).to(rows.device).float().nan_to_num()
            for values in self.features.values()
        ]

    def encode(self, tower: ItemTower, rows: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Encode item rows [n] to vectors [n, dim]; `hidden` [n] marks dropped ids."""
        id_rows = self.id_rows[rows]
        if hidden is not None:
            id_rows = id_rows.masked_fill(hidden, tower.unknown_row)
        return tower(id_rows, self.gather(rows), self.presence[rows])  # type: ignore[no-any-return]

    def encode_all(self, tower: ItemTower) -> Tensor:
        """Encode the whole catalogue without id dropout; [items, dim]."""
        return torch.cat(list(self.encode_chunks(tower)))

    @torch.no_grad()
    def encode_chunks(self, tower: ItemTower) -> Iterator[Tensor]:
        """Encode the catalogue in order, chunk by chunk; [n, dim] each."""
        rows = torch.arange(len(self), device=self.id_rows.device)
        for chunk in torch.split(rows, CHUNK):
            yield self.encode(tower, chunk)


def map_modalities(modalities: Mapping[str, Features], folder: Path) -> dict[str, Features]:
    """Move modalities to unnamed files in a folder, mapped into memory, so that they occupy none.

    Each is stored as float16 if all its values fit without loss.

    Raises:
        OSError: the disk is full.
    """
    mapped: dict[str, Features] = {}
    for name, values in modalities.items():
        chunks = range(0, len(values), CHUNK)
        is_exact = all(_is_half(values[start : start + CHUNK]) for start in chunks)
        dtype = np.dtype(np.float16 if is_exact else np.float32)
        with TemporaryFile(dir=folder) as file:
            for start in chunks:
                file.write(values[start : start + CHUNK].astype(dtype).tobytes())
            file.flush()
            mapped[name] = np.memmap(file, dtype, mode="c", shape=values.shape)
    return mapped


def _is_half(values: Features) -> bool:
    """Return whether float16 holds all values exactly."""
    with np.errstate(over="ignore"):
        return np.array_equal(values.astype(np.float16), values, equal_nan=True)


def build_item_features(
    modalities: Mapping[str, Features], counts: NDArray[np.int64], device: torch.device
) -> ItemFeatures:
    """Build the features of all items; in main memory they share the arrays of the modalities.

    Args:
        modalities: modality -> [items, raw dim], NaN rows where missing.
        counts: [items], training positives.
        device: device of the other tensors, and of features of at most DEVICE_BYTES.
    """
    is_missing = [np.isnan(rows[:, 0]) for rows in modalities.values()]
    presence = ~np.stack(is_missing, axis=1) if is_missing else np.zeros((len(counts), 0), bool)
    is_warm = counts > 0
    num_ids = int(is_warm.sum())
    is_small = sum(rows.nbytes for rows in modalities.values()) <= DEVICE_BYTES
    return ItemFeatures(
        features={
            name: torch.from_numpy(rows).to(device if is_small else "cpu")
            for name, rows in modalities.items()
        },
        presence=torch.from_numpy(presence).to(device),
        id_rows=torch.from_numpy(np.where(is_warm, is_warm.cumsum() - 1, num_ids)).to(device),
        num_ids=num_ids,
    )
