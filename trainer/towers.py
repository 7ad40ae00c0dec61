"""The two towers: items to unit vectors, histories to unit vectors of the same space.

Source: ours; the ESANS paper's towers are standard ones. Choices that a reader would not guess:
  - the item tower reads an id embedding and every raw modality; items without a training
    positive always use the one "unknown" id row, so that content alone speaks for them
  - in training the id is replaced by "unknown" now and then: content learns to stand alone
  - the user tower reads item vectors, not ids: a new user with one click is served at once
  - centring and scaling of raw rows live inside the tower, so what is exported takes raw rows
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import TowersConfig

HIDDEN_FACTOR = 4  # the towers' hidden layers, in widths
MASKED = -1e4  # the attention of an empty place


class ItemTower(nn.Module):
    """Items, given by id row and raw content, to unit vectors."""

    def __init__(self, num_items: int, means: Mapping[str, Tensor], config: TowersConfig) -> None:
        """Prepare for a catalogue.

        means  name -> [raw width], the catalogue's mean raw row of each modality
        """
        super().__init__()
        width = config.embedding_dim
        self.unknown_row = num_items
        self.names = list(means)
        self.ids = nn.Embedding(num_items + 1, width)
        nn.init.normal_(self.ids.weight, std=config.id_init_std)
        for place, mean in enumerate(means.values()):  # by place: torch takes no dot in a name
            self.register_buffer(f"mean_{place}", mean.clone())
        self.projections = nn.ModuleList(nn.Linear(len(means[name]), width) for name in means)
        self.missing = nn.Parameter(torch.randn(len(means), width) * width**-0.5)
        parts = 1 + len(means)
        self.mix = nn.Sequential(
            nn.Linear(parts * width + len(means), HIDDEN_FACTOR * width),
            nn.GELU(),
            nn.Linear(HIDDEN_FACTOR * width, width),
        )

    def forward(self, id_rows: Tensor, features: list[Tensor], presence: Tensor) -> Tensor:
        """Encode items.

        id_rows   [rows]                  int64; `unknown_row` where content alone should speak
        features  one [rows, raw width] per modality; anything finite where missing
        presence  [rows, modalities]      bool
        returns   [rows, width]           unit rows
        """
        own: Tensor = self.ids(id_rows)
        return self.combine(own, features, presence)

    def combine(self, own: Tensor, features: list[Tensor], presence: Tensor) -> Tensor:
        """Encode items whose id embeddings [rows, width] are at hand; see `forward`."""
        parts = [own]
        for place in range(len(self.names)):
            mean = cast(Tensor, getattr(self, f"mean_{place}"))
            content = self.projections[place](functional.normalize(features[place] - mean, dim=-1))
            parts.append(torch.where(presence[:, place, None], content, self.missing[place]))
        total = torch.stack(parts).sum(dim=0)
        mixed = self.mix(torch.cat([*parts, presence.float()], dim=-1))
        unit: Tensor = functional.normalize(total + mixed, dim=-1)
        return unit


class UserTower(nn.Module):
    """Histories of item vectors to unit queries: attention pooling, then a residual MLP."""

    def __init__(self, width: int, history_length: int, is_ordered: bool) -> None:
        super().__init__()
        self.is_ordered = is_ordered
        self.positions = nn.Embedding(history_length, width)
        nn.init.zeros_(self.positions.weight)
        self.keys = nn.Linear(width, width)
        self.focus = nn.Linear(width, 1, bias=False)
        self.mix = nn.Sequential(
            nn.Linear(width, HIDDEN_FACTOR * width),
            nn.GELU(),
            nn.Linear(HIDDEN_FACTOR * width, width),
        )

    def forward(self, history_vectors: Tensor, mask: Tensor) -> Tensor:
        """Encode histories.

        history_vectors  [batch, length, width]  unit rows, newest at position 0
        mask             [batch, length]         True where there is an item
        returns          [batch, width]          unit rows
        """
        keys = self.keys(history_vectors)  # [batch, length, width]
        if self.is_ordered:
            keys = keys + self.positions.weight[: history_vectors.shape[1]]
        attention = self.focus(torch.tanh(keys)).squeeze(-1)  # [batch, length]
        weights = torch.softmax(attention.masked_fill(~mask, MASKED), dim=-1)
        return self.query((weights[:, None, :] @ history_vectors).squeeze(1))

    def read(self, vectors: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        """Encode histories given as places among distinct vectors, as `forward` would.

        vectors  [distinct, width]  unit rows
        places   [entries]          of the histories' items, history after history
        mask     [batch, length]    True where there is an item, as many as entries
        returns  [batch, width]     unit rows

        Keys are computed once for each distinct item, and nothing for what is masked: in
        training an item stands in many histories of a batch, and most places are empty.
        """
        keys = functional.embedding(places, self.keys(vectors))  # [entries, width]
        if self.is_ordered:
            ages = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)[mask]
            keys = keys + functional.embedding(ages, self.positions.weight)
        attention = vectors.new_full(mask.shape, MASKED)
        attention[mask] = self.focus(torch.tanh(keys)).squeeze(-1)
        weights = torch.softmax(attention, dim=-1)  # [batch, length]
        counts = mask.sum(dim=1)
        pooled = functional.embedding_bag(
            places,
            vectors,
            counts.cumsum(0) - counts,
            mode="sum",
            per_sample_weights=weights[mask],
        )
        return self.query(pooled)

    def query(self, pooled: Tensor) -> Tensor:
        """Turn pooled histories into queries; [batch, width] to unit rows [batch, width]."""
        unit: Tensor = functional.normalize(pooled + self.mix(pooled), dim=-1)
        return unit


class Towers(nn.Module):
    """Both towers, trained and saved together: one means nothing without the other."""

    def __init__(self, item: ItemTower, user: UserTower) -> None:
        super().__init__()
        self.item = item
        self.user = user


def build_towers(
    num_items: int,
    means: Mapping[str, Tensor],
    config: TowersConfig,
    is_ordered: bool,
    seed: int,
) -> Towers:
    """Make both towers with seeded weights, on the CPU.

    means       name -> [raw width], the catalogue's mean raw row of each modality
    is_ordered  whether the place of an item in a history means anything
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        item = ItemTower(num_items, means, config)
        user = UserTower(config.embedding_dim, config.history_length, is_ordered)
    return Towers(item, user)
