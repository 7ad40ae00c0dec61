"""The interface between the loss and its negatives: `sampler(context) -> SampledNegatives`.

A sampler is a function, or an object called like one where it keeps state. The loop never
changes for a new one: it hands over what the step knows and takes vectors, whatever they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class StepContext:
    """What a step knows when its negatives are sampled.

    user_rows      [batch]       int64
    positive_rows  [batch]       int64, the targets
    positives      [batch, dim]  their vectors, with gradient
    queries        [batch, dim]  the users' vectors, with gradient
    target_share   [items]       float32, each item's share of all training targets, sum 1
    encode         rows [n] -> vectors [n, dim], with gradient
    is_seen        rows [n] or [batch, n] -> bool [batch, n]: training positives of each user
    step           counted from 0 over the whole run
    rng            of this step alone: the same step draws the same, resumed or not
    """

    user_rows: Tensor
    positive_rows: Tensor
    positives: Tensor
    queries: Tensor
    target_share: Tensor
    encode: Callable[[Tensor], Tensor]
    is_seen: Callable[[Tensor], Tensor]
    step: int
    rng: Generator

    def draw_uniformly(self, count: int) -> Tensor:
        """Draw item rows uniformly with replacement; [count]."""
        rows = torch.randint(len(self.target_share), (count,), generator=self.rng)
        return rows.to(self.positive_rows.device)


@dataclass(frozen=True)
class SampledNegatives:
    """What a sampler drew: shared by the batch, or a set per row.

    vectors         [n, dim] or [batch, n, dim]
    log_q           [n] or [batch, n]  log of the expected count with which each was drawn;
                    per row where the proposal distribution is, though vectors be shared
    is_masked       [batch, n]         True where it must not count as a negative of that row:
                    a false negative (seen by the user, of the positive's cell), or not kept
    positive_log_q  [batch] or None    log q of the positives; None where it has none
    rows            [n] or [batch, n]  item rows; None where any vector is virtual
    encoded_count   item rows encoded for this draw, candidates included: what it cost
    also            further negatives of the same rows, in the other shape: shared ones and a
                    set per row need not be copied into one; only vectors, log_q and is_masked
                    of it are read
    """

    vectors: Tensor
    log_q: Tensor
    is_masked: Tensor
    positive_log_q: Tensor | None = None
    rows: Tensor | None = None
    encoded_count: int = 0
    also: "SampledNegatives | None" = None

    def sets(self) -> "Iterator[SampledNegatives]":
        """Yield every set: this one, then those chained to it."""
        part: SampledNegatives | None = self
        while part is not None:
            yield part
            part = part.also


class Sampler(Protocol):
    """Samples the negatives of one step."""

    def __call__(self, context: StepContext, /) -> SampledNegatives:
        """Sample for the step that the context describes."""


@runtime_checkable
class StatefulSampler(Protocol):
    """A sampler that remembers: the loop keeps its state in the checkpoint with the weights."""

    def state(self) -> dict[str, Tensor]:
        """Return everything that later draws depend on."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""


@runtime_checkable
class SwappableSampler(Protocol):
    """A sampler whose cluster map is replaced while it trains, between two steps."""

    def swap(self, step: int) -> dict[str, Any] | None:
        """Sample from the newest map, from this step on.

        returns  its entry in the manifest: its card, `from_step`, `published_version`,
                 `sequence` and `source`; None where nothing changed
        """
