"""Item tower and user tower, which encode into one space of unit vectors.

Source: ours; the ESANS paper uses standard towers. Design choices:
  - the item tower combines an id embedding with every raw modality; cold items use the
    unknown-item embedding, so only their content counts
  - id dropout replaces ids by the unknown-item embedding in training
  - the user tower reads item vectors, not ids, so it can serve a new user after one click
  - the item tower centres and scales raw features itself, so the exported encoder takes raw ones
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import TowersConfig

HIDDEN_FACTOR = 4  # size of the hidden layers, as a multiple of the embedding dim
MASKED = -1e4  # attention score of a padded position


class ItemTower(nn.Module):
    """Encoder of items, from id row and raw content to unit vectors."""

    def __init__(self, num_ids: int, means: Mapping[str, Tensor], config: TowersConfig) -> None:
        """Initialise for a catalogue.

        Args:
            num_ids: items with an id embedding; cold items have none.
            means: modality -> [raw dim], mean raw feature over the catalogue.
            config: dimensions and initialisation.
        """
        super().__init__()
        dim = config.embedding_dim
        self.unknown_row = num_ids
        self.names = list(means)
        self.ids = nn.Embedding(num_ids + 1, dim, sparse=True)
        nn.init.normal_(self.ids.weight, std=config.id_init_std)
        for number, mean in enumerate(means.values()):  # torch forbids dots in buffer names
            self.register_buffer(f"mean_{number}", mean.clone())
        self.projections = nn.ModuleList(nn.Linear(len(means[name]), dim) for name in means)
        self.missing = nn.Parameter(torch.randn(len(means), dim) * dim**-0.5)
        parts = 1 + len(means)
        self.mix = nn.Sequential(
            nn.Linear(parts * dim + len(means), HIDDEN_FACTOR * dim),
            nn.GELU(),
            nn.Linear(HIDDEN_FACTOR * dim, dim),
        )

    def forward(self, id_rows: Tensor, features: list[Tensor], presence: Tensor) -> Tensor:
        """Encode items.

        Args:
            id_rows: [rows] int64; `unknown_row` to encode from content alone.
            features: one [rows, raw dim] per modality; any finite values where missing.
            presence: [rows, modalities] bool.

        Returns:
            [rows, dim], unit norm.
        """
        id_embeddings: Tensor = self.ids(id_rows)
        return self.combine(id_embeddings, features, presence)

    def combine(self, id_embeddings: Tensor, features: list[Tensor], presence: Tensor) -> Tensor:
        """Encode items from their id embeddings [rows, dim]; see `forward`."""
        parts = [id_embeddings]
        for number in range(len(self.names)):
            mean = cast(Tensor, getattr(self, f"mean_{number}"))
            unit_features = functional.normalize(features[number] - mean, dim=-1)
            content = self.projections[number](unit_features)
            parts.append(torch.where(presence[:, number, None], content, self.missing[number]))
        total = torch.stack(parts).sum(dim=0)
        mixed = self.mix(torch.cat([*parts, presence.float()], dim=-1))
        unit: Tensor = functional.normalize(total + mixed, dim=-1)
        return unit


class UserTower(nn.Module):
    """Encoder of histories into query vectors: attention pooling and a residual MLP."""

    def __init__(self, dim: int, history_length: int, is_ordered: bool) -> None:
        super().__init__()
        self.is_ordered = is_ordered
        self.positions = nn.Embedding(history_length, dim)
        nn.init.zeros_(self.positions.weight)
        self.keys = nn.Linear(dim, dim)
        self.attention = nn.Linear(dim, 1, bias=False)
        self.mix = nn.Sequential(
            nn.Linear(dim, HIDDEN_FACTOR * dim), nn.GELU(), nn.Linear(HIDDEN_FACTOR * dim, dim)
        )

    def forward(self, history_vectors: Tensor, mask: Tensor) -> Tensor:
        """Encode histories.

        Args:
            history_vectors: [batch, length, dim], unit norm, newest at position 0.
            mask: [batch, length], True where there is an item.

        Returns:
            [batch, dim], unit norm.
        """
        keys = self.keys(history_vectors)  # [batch, length, dim]
        if self.is_ordered:
            keys = keys + self.positions.weight[: history_vectors.shape[1]]
        scores = self.attention(torch.tanh(keys)).squeeze(-1)  # [batch, length]
        weights = torch.softmax(scores.masked_fill(~mask, MASKED), dim=-1)
        return self.project((weights[:, None, :] @ history_vectors).squeeze(1))

    def encode_indexed(self, vectors: Tensor, indices: Tensor, mask: Tensor) -> Tensor:
        """Encode histories given as indices into distinct item vectors; equals `forward`.

        In training an item occurs in many histories of a batch and most positions are padding,
        so keys are computed once per distinct item and not at all for padding.

        Args:
            vectors: [distinct, dim], unit norm.
            indices: [entries], items of the histories, concatenated.
            mask: [batch, length], True where there is an item, `entries` times.

        Returns:
            [batch, dim], unit norm.
        """
        keys = functional.embedding(indices, self.keys(vectors))  # [entries, dim]
        if self.is_ordered:
            ages = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)[mask]
            keys = keys + functional.embedding(ages, self.positions.weight)
        scores = vectors.new_full(mask.shape, MASKED)
        scores[mask] = self.attention(torch.tanh(keys)).squeeze(-1).to(scores.dtype)
        weights = torch.softmax(scores, dim=-1)  # [batch, length]
        counts = mask.sum(dim=1)
        pooled = functional.embedding_bag(
            indices,
            vectors,
            counts.cumsum(0) - counts,
            mode="sum",
            per_sample_weights=weights[mask],
        )
        return self.project(pooled)

    def project(self, pooled: Tensor) -> Tensor:
        """Map pooled histories [batch, dim] to query vectors [batch, dim], unit norm."""
        unit: Tensor = functional.normalize(pooled + self.mix(pooled), dim=-1)
        return unit


class Towers(nn.Module):
    """Item tower and user tower, trained and saved together."""

    def __init__(self, item: ItemTower, user: UserTower) -> None:
        super().__init__()
        self.item = item
        self.user = user


def build_towers(
    num_ids: int, means: Mapping[str, Tensor], config: TowersConfig, is_ordered: bool, seed: int
) -> Towers:
    """Build both towers on the CPU with seeded weights.

    Args:
        num_ids: items with an id embedding.
        means: modality -> [raw dim], mean raw feature over the catalogue.
        config: dimensions and initialisation.
        is_ordered: whether histories are ordered by time.
        seed: random seed of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        item = ItemTower(num_ids, means, config)
        user = UserTower(config.embedding_dim, config.history_length, is_ordered)
    return Towers(item, user)
