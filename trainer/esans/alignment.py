"""Align the modalities of the items in one space, by a contrastive loss over items."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from index.arrays import Floats
from index.ids import hash_ids
from trainer.config import ClustersConfig

LEARNING_RATE = 1e-3  # of Adam
CHUNK = 65_536  # items prepared or encoded at once


@dataclass(frozen=True)
class AlignedItems:
    """Items in one space.

    blocks    name -> [items, width]  unit rows; 0 where the item lacks the modality
    presence  [items, modalities]     bool
    loss      of the last tenth of the steps; None where nothing had to be aligned
    """

    blocks: dict[str, Floats]
    presence: NDArray[np.bool_]
    loss: float | None

    def means(self, rows: slice | NDArray[np.int64]) -> Floats:
        """Return the mean of each item's rows over what it has, 0 of nothing; [n, width]."""
        total = np.sum([block[rows] for block in self.blocks.values()], axis=0)
        counts = np.maximum(self.presence[rows].sum(axis=1, keepdims=True), 1)
        means: Floats = (total / counts).astype(np.float32)
        return means

    def residuals(self, rows: slice | NDArray[np.int64], centres: Floats) -> Floats:
        """Return each item's rows less its centre, side by side; [n, modalities * width].

        centres  [n, width]
        A modality that the item lacks leaves 0.
        """
        parts = [
            (block[rows] - centres) * self.presence[rows, place, None]
            for place, block in enumerate(self.blocks.values())
        ]
        return np.concatenate(parts, axis=1).astype(np.float32)


@dataclass(frozen=True)
class Modality:
    """One modality, as the alignment reads it.

    values   [items, width]  raw, NaN where missing
    mean     [width]         over the items that have it
    looks    [items]         items of equal rows have equal numbers
    is_here  [items]
    """

    values: Floats
    mean: Floats
    looks: NDArray[np.int64]
    is_here: NDArray[np.bool_]

    def unit_rows(self, rows: NDArray[np.int64]) -> Floats:
        """Return rows centred over the catalogue, then put on the unit sphere; [n, width]."""
        return unit_rows(self.values[rows] - self.mean)

    def spread(self, encode: Callable[[NDArray[np.int64]], Floats], width: int) -> Floats:
        """Encode each different row once, in chunks, for all items of that look.

        So that equal raw rows are equal to the last bit, whatever chunk they fall in.
        returns  [items, width]  0 where missing
        """
        block = np.zeros((len(self.values), width), dtype=np.float32)
        rows = np.flatnonzero(self.is_here)
        firsts = rows[np.unique(self.looks[rows], return_index=True)[1]]
        for start in range(0, len(firsts), CHUNK):
            some = firsts[start : start + CHUNK]
            block[some] = encode(some)
        models = firsts[self.looks[rows]]
        is_copy = models != rows
        block[rows[is_copy]] = block[models[is_copy]]
        return block


def align(modalities: Mapping[str, Floats], config: ClustersConfig, seed: int) -> AlignedItems:
    """Align modalities in one space; one alone is only centred and scaled, at its own width.

    modalities  name -> [items, raw width]  all-NaN rows where missing
    Source: the ESANS paper, MSAC. The encoders are ours.
    Raises ValueError if there is no modality.
    """
    if not modalities:
        raise ValueError("no modality to align")
    every = {name: prepare_modality(values) for name, values in modalities.items()}
    parts = {name: part for name, part in every.items() if part.is_here.any()} or every
    presence = np.stack([part.is_here for part in parts.values()], axis=1)
    if len(parts) == 1:
        (alone,) = parts.values()
        raw_width = alone.values.shape[1]
        blocks = {name: alone.spread(alone.unit_rows, raw_width) for name in parts}
        return AlignedItems(blocks, presence, None)
    encoders, loss = _train(list(parts.values()), presence, config, seed)
    blocks = {
        name: _encode_all(encoder, part, config.embedding_dim)
        for encoder, (name, part) in zip(encoders, parts.items(), strict=True)
    }
    return AlignedItems(blocks, presence, loss)


def contrastive_loss(left: Tensor, right: Tensor, is_twin: Tensor, temperature: float) -> Tensor:
    """Tell the two rows of each item apart from those of other items, in both directions.

    left, right  [n, width]  unit rows of two modalities, item by item
    is_twin      [n, n]      True where two items look equal in one of the two: no negatives
    """
    logits = left @ right.T / temperature
    itself = torch.eye(len(left), dtype=torch.bool, device=left.device)
    logits = logits.masked_fill(is_twin & ~itself, -torch.inf)
    wanted = torch.arange(len(left), device=left.device)
    there, back = (functional.cross_entropy(one, wanted) for one in (logits, logits.T))
    return (there + back) / 2


class Encoder(nn.Module):
    """Two layers from a modality's unit rows into the common space (ours)."""

    def __init__(self, raw_width: int, width: int) -> None:
        super().__init__()
        self.scale = math.sqrt(raw_width)  # unit rows have tiny entries: biases would drown them
        self.layers = nn.Sequential(
            nn.Linear(raw_width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Encode unit rows [n, raw width] to unit rows [n, width]."""
        return functional.normalize(self.layers(rows * self.scale), dim=-1)


@torch.no_grad()
def _encode_all(encoder: Encoder, part: Modality, width: int) -> Floats:
    """Encode every item that has the modality; [items, width], 0 where missing."""

    def encode(rows: NDArray[np.int64]) -> Floats:
        encoded: Floats = encoder(torch.from_numpy(part.unit_rows(rows))).numpy()
        return encoded

    return part.spread(encode, width)


def _train(
    parts: list[Modality],
    presence: NDArray[np.bool_],
    config: ClustersConfig,
    seed: int,
) -> tuple[list[Encoder], float | None]:
    """Train an encoder per modality on the items that have two modalities or more."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoders = [Encoder(part.values.shape[1], config.embedding_dim) for part in parts]
    weights = [one for encoder in encoders for one in encoder.parameters()]
    optimizer = torch.optim.Adam(weights, lr=LEARNING_RATE)
    rows = np.flatnonzero(presence.sum(axis=1) > 1)
    losses: list[float] = []
    bar = tqdm(_batches(rows, config, seed), "alignment", _step_count(rows, config), unit=" steps")
    for batch in bar:
        loss = _loss(parts, encoders, presence, batch, config.alignment_temperature)
        if loss is None:
            continue
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        losses.append(float(loss.item()))
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    tail = losses[-max(1, len(losses) // 10) :]
    return encoders, float(np.mean(tail)) if tail else None


def _loss(
    parts: list[Modality],
    encoders: list[Encoder],
    presence: NDArray[np.bool_],
    batch: NDArray[np.int64],
    temperature: float,
) -> Tensor | None:
    """Return the mean loss over the pairs of modalities that two items of the batch have."""
    encoded = [
        encoder(torch.from_numpy(np.nan_to_num(part.unit_rows(batch))))
        for part, encoder in zip(parts, encoders, strict=True)
    ]
    losses = []
    for one, other in combinations(range(len(parts)), 2):
        kept = np.flatnonzero(presence[batch, one] & presence[batch, other])
        if len(kept) < 2:
            continue
        twins = _is_equal(parts[one].looks[batch[kept]])
        twins |= _is_equal(parts[other].looks[batch[kept]])
        places = torch.from_numpy(kept)
        left, right = encoded[one][places], encoded[other][places]
        losses.append(contrastive_loss(left, right, torch.from_numpy(twins), temperature))
    return torch.stack(losses).mean() if losses else None


def _is_equal(looks: NDArray[np.int64]) -> NDArray[np.bool_]:
    return looks[:, None] == looks  # type: ignore[no-any-return]  # [n, n]


def _step_count(rows: NDArray[np.int64], config: ClustersConfig) -> int:
    """Count the steps; none where fewer than two items have two modalities."""
    if len(rows) < 2:
        return 0
    per_epoch = math.ceil(len(rows) / config.alignment_batch)
    return min(config.alignment_steps, config.alignment_epochs * per_epoch)


def _batches(
    rows: NDArray[np.int64], config: ClustersConfig, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Yield shuffled batches of items, epoch after epoch."""
    rng = np.random.default_rng([seed, 1])
    left = _step_count(rows, config)
    while left > 0:
        order = rng.permutation(rows)
        for start in range(0, len(order), config.alignment_batch)[:left]:
            yield order[start : start + config.alignment_batch]
            left -= 1


def prepare_modality(values: Floats) -> Modality:
    """Look a modality through: who has it, what is its mean, which rows are equal."""
    is_here = np.asarray(~np.isnan(values).any(axis=1))
    rows = np.flatnonzero(is_here)
    mean = np.zeros(values.shape[1], dtype=np.float64)
    looks = np.full(len(values), -1, dtype=np.int64)
    hashes = []
    for start in range(0, len(rows), CHUNK):
        some = values[rows[start : start + CHUNK]] + np.float32(
            0
        )  # -0 turns 0, so that equal rows are equal bytes
        mean += some.sum(axis=0, dtype=np.float64)
        hashes.append(hash_ids(row.tobytes() for row in some))
    if hashes:
        looks[rows] = np.unique(np.concatenate(hashes), return_inverse=True)[1]
    mean /= max(1, len(rows))
    return Modality(values, mean.astype(np.float32), looks, is_here)


def unit_rows(rows: Floats) -> Floats:
    """Put rows on the unit sphere; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Floats = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
    return units
