"""The seam between the loop and its negatives: `sample(context) -> Negatives`.

A sampler is a function, or an object called like one where it keeps state. The loop never
changes for a new one: it hands over what the step knows and takes vectors, whatever they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Generator, Tensor


@dataclass(frozen=True)
class Context:
    """What a step knows when its negatives are drawn.

    user_rows      [batch]         int64
    positive_rows  [batch]         int64, the targets
    positives      [batch, width]  their vectors, with gradient
    queries        [batch, width]  the users' vectors, with gradient
    target_share   [items]         float32, each item's share of all training targets, sum 1
    encode         rows [n] -> vectors [n, width], with gradient
    is_known       rows [n] or [batch, n] -> bool [batch, n]: training positives of each user
    step           counted from 0 over the whole run
    rng            of this step alone: the same step draws the same, resumed or not
    """

    user_rows: Tensor
    positive_rows: Tensor
    positives: Tensor
    queries: Tensor
    target_share: Tensor
    encode: Callable[[Tensor], Tensor]
    is_known: Callable[[Tensor], Tensor]
    step: int
    rng: Generator


@dataclass(frozen=True)
class Negatives:
    """What a sampler drew: shared by the batch, or a set per row.

    vectors         [n, width] or [batch, n, width]
    log_q           [n] or [batch, n]   log of the expected count with which each was drawn;
                                        per row where the law is, though vectors be shared
    is_masked       [batch, n]          True where it must not count as a negative of that row
    positive_log_q  [batch] or None     the same law at the positives; None where it has none
    rows            [n] or [batch, n]   item rows; None where any vector is virtual
    encoded_count   item rows encoded for this draw, candidates included: what it cost
    also            further negatives of the same rows, in the other shape: shared ones and a
                    set per row need not be copied into one; only these of theirs are read:
                    vectors, log_q, is_masked
    """

    vectors: Tensor
    log_q: Tensor
    is_masked: Tensor
    positive_log_q: Tensor | None = field(default=None)
    rows: Tensor | None = field(default=None)
    encoded_count: int = field(default=0)
    also: "Negatives | None" = field(default=None)


def sets_of(drawn: Negatives) -> Iterator[Negatives]:
    """Walk over all the sets that were drawn: the first, then what is chained to it."""
    part: Negatives | None = drawn
    while part is not None:
        yield part
        part = part.also


class Sampler(Protocol):
    """Draws the negatives of one step."""

    def __call__(self, context: Context, /) -> Negatives:
        """Draw for the step that the context describes."""


@runtime_checkable
class Stateful(Protocol):
    """A sampler that remembers: the loop keeps its state in the checkpoint with the weights."""

    def state(self) -> dict[str, Tensor]:
        """Return everything that later draws depend on."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""


@runtime_checkable
class Swapping(Protocol):
    """A sampler whose map is replaced while it trains: the loop lets it, between two steps."""

    def swap(self, step: int) -> dict[str, Any] | None:
        """Draw from the newest map, from this step on.

        returns  what the manifest tells of it: its card, `from_step`, `published_version`,
                 `sequence` and `source`; None where all stays as it was
        """
