"""Input features of the item tower, as tensors on one device."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.towers import ItemTower

CHUNK = 16_384  # items per forward pass of `encode_all`


@dataclass(frozen=True)
class ItemFeatures:
    """Raw features, modality presence and id rows of all items.

    Attributes:
        features: modality -> [items, raw dim], 0 where missing.
        presence: [items, modalities] bool.
        id_rows: [items] int64; the unknown-item row for cold items.
    """

    features: dict[str, Tensor]
    presence: Tensor
    id_rows: Tensor

    def __len__(self) -> int:
        return len(self.id_rows)

    def means(self) -> dict[str, Tensor]:
        """Return the mean raw feature of each modality over the items that have it."""
        return {
            name: rows.sum(dim=0) / self.presence[:, column].sum().clamp(min=1)
            for column, (name, rows) in enumerate(self.features.items())
        }

    def encode(self, tower: ItemTower, rows: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Encode item rows [n] to vectors [n, dim]; `hidden` [n] marks dropped ids."""
        id_rows = self.id_rows[rows]
        if hidden is not None:
            id_rows = id_rows.masked_fill(hidden, tower.unknown_row)
        features = [values[rows] for values in self.features.values()]
        return tower(id_rows, features, self.presence[rows])  # type: ignore[no-any-return]

    @torch.no_grad()
    def encode_all(self, tower: ItemTower) -> Tensor:
        """Encode the whole catalogue without id dropout; [items, dim]."""
        rows = torch.arange(len(self), device=self.id_rows.device)
        return torch.cat([self.encode(tower, chunk) for chunk in torch.split(rows, CHUNK)])


def build_item_features(
    modalities: Mapping[str, NDArray[np.float32]], counts: NDArray[np.int64], device: torch.device
) -> ItemFeatures:
    """Build the features of all items.

    Args:
        modalities: modality -> [items, raw dim], NaN rows where missing.
        counts: [items], training positives.
        device: device of the tensors.
    """
    is_missing = [np.isnan(rows).all(axis=1) for rows in modalities.values()]
    presence = ~np.stack(is_missing, axis=1) if is_missing else np.zeros((len(counts), 0), bool)
    id_rows = np.where(counts > 0, np.arange(len(counts)), len(counts))
    return ItemFeatures(
        features={
            name: torch.from_numpy(np.nan_to_num(rows).astype(np.float32)).to(device)
            for name, rows in modalities.items()
        },
        presence=torch.from_numpy(presence).to(device),
        id_rows=torch.from_numpy(id_rows).to(device),
    )
