"""Is a difference more than chance? Paired bootstrap over users, and Holm over datasets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CHUNK_NUMBERS = 4_000_000  # drawn counts held at once: 32 MB
TAILS = (2.5, 97.5)  # percentiles of a 95 % interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """Ours less theirs, with its 95 % interval, absolute and as a part of theirs.

    p_value  two-sided; never below 2 / (resamples + 1)
    """

    absolute: float
    interval: tuple[float, float]
    relative: float
    relative_interval: tuple[float, float]
    p_value: float


def paired_bootstrap(
    ours: Floats, theirs: Floats, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Difference:
    """Compare two methods on the same cases.

    ours, theirs  [cases]  what each case found of its items, averaged over the seeds

    Cases are resampled with replacement, both methods' values of a case together. Only values
    count, not whose they are: a resample is a multinomial draw over the distinct pairs of
    values, which is the same law, and a handful of numbers instead of one per case.
    Raises ValueError if the two are not of the same cases, or theirs are all 0.
    """
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours):
        raise ValueError(f"ours {ours.shape} and theirs {theirs.shape} must be [cases], alike")
    if not theirs.any():
        raise ValueError("theirs found nothing at all: no difference can be a part of it")
    pairs, counts = np.unique(np.stack([ours, theirs], axis=1), axis=0, return_counts=True)
    means = _resampled_means(pairs, counts, rng, resamples)  # [resamples, 2]
    differences = means[:, 0] - means[:, 1]
    relative = differences / np.maximum(means[:, 1], np.finfo(np.float64).tiny)
    absolute = float(ours.mean() - theirs.mean())
    return Difference(
        absolute=absolute,
        interval=_interval(differences),
        relative=absolute / float(theirs.mean()),
        relative_interval=_interval(relative),
        p_value=_p_value(differences),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of one family by Holm's step-down method, in the order given.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * factors))
    return [float(value) for value in adjusted]


def _resampled_means(
    pairs: Floats, counts: NDArray[np.int64], rng: np.random.Generator, resamples: int
) -> Floats:
    total = counts.sum()
    chunk = max(1, CHUNK_NUMBERS // len(pairs))
    means = [
        rng.multinomial(total, counts / total, size=min(chunk, resamples - first)) @ pairs
        for first in range(0, resamples, chunk)
    ]
    stacked: Floats = np.concatenate(means) / total
    return stacked


def _interval(values: Floats) -> tuple[float, float]:
    low, high = np.percentile(values, TAILS)
    return float(low), float(high)


def _p_value(differences: Floats) -> float:
    """Double the smaller share of resamples on a side of 0, the sample itself counted."""
    least = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (least + 1) / (len(differences) + 1)))
