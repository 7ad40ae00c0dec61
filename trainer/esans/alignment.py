"""Align the modalities of the items in one space with a contrastive loss (MSAC)."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from index.arrays import Features, Floats, scratch_zeros
from index.ids import hash_ids
from trainer.config import ClustersConfig
from trainer.progress import progress_bar

LEARNING_RATE = 1e-3  # of Adam
CHUNK = 65_536  # items prepared or encoded at once


@dataclass(frozen=True)
class AlignedItems:
    """Items embedded in one space, per modality.

    Attributes:
        embeddings: modality name to z_i^m, [num_items, dim], unit norm; 0 where it is missing.
        presence: [num_items, modalities] bool.
        loss: mean over the last tenth of the steps; None if nothing was aligned.
    """

    embeddings: dict[str, Floats]
    presence: NDArray[np.bool_]
    loss: float | None

    def means(self, rows: slice | NDArray[np.int64]) -> Floats:
        """Return zbar_i, the mean over the modalities of an item, 0 if it has none; [n, dim]."""
        total = np.sum([values[rows] for values in self.embeddings.values()], axis=0)
        counts = np.maximum(self.presence[rows].sum(axis=1, keepdims=True), 1)
        means: Floats = (total / counts).astype(np.float32)
        return means

    def residuals(self, rows: slice | NDArray[np.int64], centroids: Floats) -> Floats:
        """Return r_i, the concatenation over the modalities of z_i^m - C_c1(i).

        Args:
            rows: of n items.
            centroids: [n, dim], C_c1(i) of each item.

        Returns:
            [n, modalities * dim], 0 in the block of a missing modality.
        """
        blocks = [
            (values[rows] - centroids) * self.presence[rows, column, None]
            for column, values in enumerate(self.embeddings.values())
        ]
        return np.concatenate(blocks, axis=1).astype(np.float32)


@dataclass(frozen=True)
class Modality:
    """One modality, prepared for alignment.

    Attributes:
        values: [num_items, dim], raw, NaN where missing.
        mean: [dim], over the items that have it.
        duplicate_groups: [num_items], equal numbers for items with equal rows; -1 where missing.
        is_present: [num_items].
    """

    values: Features
    mean: Floats
    duplicate_groups: NDArray[np.int64]
    is_present: NDArray[np.bool_]

    def normalized(self, rows: NDArray[np.int64]) -> Floats:
        """Return rows centred over the catalogue and scaled to unit norm; [n, dim]."""
        return normalize_rows(self.values[rows] - self.mean)

    def encode_distinct(self, encode: Callable[[NDArray[np.int64]], Floats], dim: int) -> Floats:
        """Encode each distinct row once, in chunks, and copy it to its duplicates.

        Equal raw rows are then bitwise equal, whichever chunk they fall in.

        Returns:
            [num_items, dim], 0 where missing.
        """
        encoded = scratch_zeros((len(self.values), dim))
        rows = np.flatnonzero(self.is_present)
        firsts = rows[np.unique(self.duplicate_groups[rows], return_index=True)[1]]
        for start in range(0, len(firsts), CHUNK):
            chunk = firsts[start : start + CHUNK]
            encoded[chunk] = encode(chunk)
        originals = firsts[self.duplicate_groups[rows]]
        is_copy = originals != rows
        copies, originals = rows[is_copy], originals[is_copy]
        for start in range(0, len(copies), CHUNK):
            encoded[copies[start : start + CHUNK]] = encoded[originals[start : start + CHUNK]]
        return encoded


def align_modalities(
    modalities: Mapping[str, Features], config: ClustersConfig, seed: int
) -> AlignedItems:
    """Align modalities in one space; a single one is only centred and scaled, at its own width.

    Args:
        modalities: name to [num_items, raw dim], all-NaN rows where missing.
        config: of the clusters.
        seed: of encoders and batches.

    Raises:
        ValueError: there is no modality.

    Source: ESANS (Xing et al., WWW 2025), MSAC, alignment. The encoders are ours.
    """
    if not modalities:
        raise ValueError("no modality to align, expected one or more; add one to the dataset")
    prepared = {name: prepare_modality(values) for name, values in modalities.items()}
    used = {name: part for name, part in prepared.items() if part.is_present.any()} or prepared
    presence = np.stack([part.is_present for part in used.values()], axis=1)
    if len(used) == 1:
        (single,) = used.values()
        raw_dim = single.values.shape[1]
        embeddings = {name: single.encode_distinct(single.normalized, raw_dim) for name in used}
        return AlignedItems(embeddings, presence, None)
    encoders, loss = _train(list(used.values()), presence, config, seed)
    embeddings = {
        name: _encode_all(encoder, part, config.embedding_dim)
        for encoder, (name, part) in zip(encoders, used.items(), strict=True)
    }
    return AlignedItems(embeddings, presence, loss)


def contrastive_loss(
    left: Tensor, right: Tensor, is_duplicate: Tensor, temperature: float
) -> Tensor:
    """Return [CE(Z^m Z^nT / tau_a, identity) + CE(Z^n Z^mT / tau_a, identity)] / 2.

    Args:
        left: [n, dim], Z^m, unit norm.
        right: [n, dim], Z^n, unit norm, of the same items.
        is_duplicate: [n, n], True where two items have equal rows in one of the modalities;
            they are not each other's negatives.
        temperature: tau_a.
    """
    logits = left @ right.T / temperature
    identity = torch.eye(len(left), dtype=torch.bool, device=left.device)
    logits = logits.masked_fill(is_duplicate & ~identity, -torch.inf)
    labels = torch.arange(len(left), device=left.device)
    forward, backward = (functional.cross_entropy(x, labels) for x in (logits, logits.T))
    return (forward + backward) / 2


class Encoder(nn.Module):
    """Two-layer MLP f_m from a modality into the common space (ours)."""

    def __init__(self, raw_dim: int, dim: int) -> None:
        super().__init__()
        self.scale = math.sqrt(raw_dim)  # entries of unit rows are tiny: biases would dominate
        self.layers = nn.Sequential(nn.Linear(raw_dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, rows: Tensor) -> Tensor:
        """Encode unit rows [n, raw_dim] to unit rows [n, dim]."""
        return functional.normalize(self.layers(rows * self.scale), dim=-1)


@torch.no_grad()
def _encode_all(encoder: Encoder, part: Modality, dim: int) -> Floats:
    """Encode every item that has the modality; [num_items, dim], 0 where missing."""

    def encode(rows: NDArray[np.int64]) -> Floats:
        encoded: Floats = encoder(torch.from_numpy(part.normalized(rows))).numpy()
        return encoded

    return part.encode_distinct(encode, dim)


def _train(
    parts: list[Modality], presence: NDArray[np.bool_], config: ClustersConfig, seed: int
) -> tuple[list[Encoder], float | None]:
    """Train one encoder per modality on the items that have at least two modalities."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoders = [Encoder(part.values.shape[1], config.embedding_dim) for part in parts]
    parameters = [parameter for encoder in encoders for parameter in encoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    rows = np.flatnonzero(presence.sum(axis=1) > 1)
    losses: list[float] = []
    batches, num_steps = _batches(rows, config, seed), _num_steps(rows, config)
    bar = progress_bar(batches, desc="alignment", total=num_steps, unit=" steps")
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
    """Return the mean loss over pairs of modalities that two or more items of the batch have."""
    encoded = [
        encoder(torch.from_numpy(np.nan_to_num(part.normalized(batch))))
        for part, encoder in zip(parts, encoders, strict=True)
    ]
    losses = []
    for m, n in combinations(range(len(parts)), 2):
        positions = np.flatnonzero(presence[batch, m] & presence[batch, n])
        if len(positions) < 2:
            continue
        is_duplicate = _pairwise_equal(parts[m].duplicate_groups[batch[positions]])
        is_duplicate |= _pairwise_equal(parts[n].duplicate_groups[batch[positions]])
        selected = torch.from_numpy(positions)
        left, right = encoded[m][selected], encoded[n][selected]
        losses.append(contrastive_loss(left, right, torch.from_numpy(is_duplicate), temperature))
    return torch.stack(losses).mean() if losses else None


def _pairwise_equal(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    return groups[:, None] == groups  # type: ignore[no-any-return]  # [n, n]


def _num_steps(rows: NDArray[np.int64], config: ClustersConfig) -> int:
    """Return the number of steps; 0 if fewer than two items have two modalities."""
    if len(rows) < 2:
        return 0
    per_epoch = math.ceil(len(rows) / config.alignment_batch)
    return min(config.alignment_steps, config.alignment_epochs * per_epoch)


def _batches(
    rows: NDArray[np.int64], config: ClustersConfig, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Yield shuffled batches of items, epoch after epoch."""
    rng = np.random.default_rng([seed, 1])
    remaining = _num_steps(rows, config)
    while remaining > 0:
        order = rng.permutation(rows)
        for start in range(0, len(order), config.alignment_batch)[:remaining]:
            yield order[start : start + config.alignment_batch]
            remaining -= 1


def prepare_modality(values: Features) -> Modality:
    """Compute presence, mean and groups of duplicate rows of a modality."""
    chunks = range(0, len(values), CHUNK)
    parts = [~np.isnan(values[start : start + CHUNK]).any(axis=1) for start in chunks]
    is_present = np.concatenate([np.zeros(0, dtype=np.bool_), *parts])
    rows = np.flatnonzero(is_present)
    mean = np.zeros(values.shape[1], dtype=np.float64)
    duplicate_groups = np.full(len(values), -1, dtype=np.int64)
    hashes = []
    for start in range(0, len(rows), CHUNK):
        # Adding 0 turns -0.0 into 0.0, so that equal rows are equal bytes.
        chunk = values[rows[start : start + CHUNK]] + np.float32(0)
        mean += chunk.sum(axis=0, dtype=np.float64)
        hashes.append(hash_ids(row.tobytes() for row in chunk))
    if hashes:
        duplicate_groups[rows] = np.unique(np.concatenate(hashes), return_inverse=True)[1]
    mean /= max(1, len(rows))
    return Modality(values, mean.astype(np.float32), duplicate_groups, is_present)


def normalize_rows(rows: Floats) -> Floats:
    """Scale rows to unit norm; a row of zeros stays zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    normalized: Floats = (rows / np.maximum(norms, 1e-12)).astype(np.float32)
    return normalized
