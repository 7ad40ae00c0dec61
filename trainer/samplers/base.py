"""Interface between the loss and its negatives: `sampler(context) -> SampledNegatives`.

A sampler is a function, or a callable object where it keeps state. The training loop passes the
context of the step and receives vectors with their log q and mask; it knows no sampler by name.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from index.arrays import Rows
from index.cluster_layout import Doubles


@dataclass(frozen=True)
class StepContext:
    """Inputs of a sampler for one training step.

    Attributes:
        user_rows: [batch] int64.
        positive_rows: [batch] int64, the targets.
        positives: [batch, dim], embeddings of the targets, with gradient.
        queries: [batch, dim], embeddings of the users, with gradient.
        batch_rows: [n] int64, distinct items of the batch's targets and histories, all encoded.
        batch_vectors: [n, dim], their embeddings, with gradient.
        in_batch_probability: item rows [n] to the probability [n] that they are in `batch_rows`.
        target_share: [num_items] float32, share of each item of all training targets, sum 1.
        encode: item rows [n] to embeddings [n, dim], with gradient.
        is_seen: item rows [n] or [batch, n] to bool [batch, n], True for training positives of
            the user.
        step: counted from 0 over the whole training run.
        rng: seeded per step, so that a resumed run samples what an uninterrupted one does.
    """

    user_rows: Tensor
    positive_rows: Tensor
    positives: Tensor
    queries: Tensor
    batch_rows: Tensor
    batch_vectors: Tensor
    in_batch_probability: Callable[[Rows], Doubles]
    target_share: Tensor
    encode: Callable[[Tensor], Tensor]
    is_seen: Callable[[Tensor], Tensor]
    step: int
    rng: Generator

    def sample_uniform(self, count: int) -> Tensor:
        """Sample item rows uniformly with replacement; [count]."""
        rows = torch.randint(len(self.target_share), (count,), generator=self.rng)
        return rows.to(self.positive_rows.device)


@dataclass(frozen=True)
class SampledNegatives:
    """A set of sampled negatives, shared by the batch or separate for each row of it.

    Attributes:
        vectors: [n, dim] if shared, [batch, n, dim] if per row.
        log_q: [n] or [batch, n], log of the expected count of each negative; per row where the
            proposal distribution depends on the row, even if the vectors are shared.
        is_masked: [batch, n], True where a vector is no negative of that row: a false negative
            (seen by the user, or in the positive's cell), or not selected for the row.
        positive_log_q: [batch], log q of the positives; None if the proposal distribution
            never samples the positive.
        rows: [n] or [batch, n], item rows; None if any vector is virtual.
        num_encoded: item rows encoded for the sample, rejected candidates included.
        log_weight: added to the logits, unlike log q whatever share of it is subtracted.
        next_set: further negatives of the same batch in the other shape, so that shared and
            per-row vectors need not be copied into one tensor. Of a further set only `vectors`,
            `log_q`, `log_weight` and `is_masked` are read.
        own_term: negatives with a loss term of their own, added with `own_term_weight`.
        source: display name of the set.
    """

    vectors: Tensor
    log_q: Tensor
    is_masked: Tensor
    positive_log_q: Tensor | None = None
    rows: Tensor | None = None
    num_encoded: int = 0
    log_weight: float = 0.0
    next_set: "SampledNegatives | None" = None
    own_term: "SampledNegatives | None" = None
    own_term_weight: float = 0.0
    source: str = "negatives"

    def sets(self) -> "Iterator[SampledNegatives]":
        """Yield this set, then those chained to it."""
        current: SampledNegatives | None = self
        while current is not None:
            yield current
            current = current.next_set


class Sampler(Protocol):
    """Samples the negatives of one training step."""

    def __call__(self, context: StepContext, /) -> SampledNegatives:
        """Sample negatives for the step of the context."""


@runtime_checkable
class StatefulSampler(Protocol):
    """Sampler whose state is saved in the checkpoint beside the weights."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that later samples depend on."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the state that `state_dict` returned."""


@runtime_checkable
class SwappableSampler(Protocol):
    """Sampler whose cluster map can be replaced between two training steps."""

    def swap(self, step: int) -> dict[str, Any] | None:
        """Sample from the newest cluster map from this step on.

        Returns:
            The manifest entry of the map: its card, `from_step`, `published_version`,
            `sequence` and `source`. None if the map did not change.
        """
