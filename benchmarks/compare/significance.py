"""Is a difference more than chance? Paired bootstrap over users, and Holm over datasets.

Cases are drawn anew once and for all: by a seed of their own, the same for every run that was
asked about the same cases. So a run keeps its recall over each draw, a thousand numbers that
say nothing of any user, and runs of different sittings and machines can still be paired.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 1_000
TAILS = (2.5, 97.5)  # percentiles of a 95 % interval

Draws = NDArray[np.float64]


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

    def columns(self) -> dict[str, float]:
        """Return it as columns of a table, keyed by the end of their names."""
        return {
            "": self.relative,
            "_low": self.relative_interval[0],
            "_high": self.relative_interval[1],
            "_absolute": self.absolute,
            "_absolute_low": self.interval[0],
            "_absolute_high": self.interval[1],
            "_p": self.p_value,
        }


def resampled_means(values: Draws, resamples: int = RESAMPLES) -> Draws:
    """Average over the cases, and over draws of as many cases with replacement.

    values   [cases]          what each case found of its items
    returns  [1 + resamples]  the mean over the cases as they are comes first

    Which cases are drawn follows from their count alone.
    """
    rng = np.random.default_rng([len(values), resamples])
    means = [values.mean()]
    means += [values[rng.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    return np.array(means)


def difference_of(ours: Draws, theirs: Draws) -> Difference:
    """Compare two methods by their means over the same draws of the same cases.

    ours, theirs  [1 + resamples]  from `resampled_means`, or averages of such

    Raises ValueError if the two are not alike, or theirs found nothing.
    """
    if ours.shape != theirs.shape or ours.ndim != 1 or len(ours) < 2:
        raise ValueError(
            f"ours {ours.shape} and theirs {theirs.shape} must be [1 + resamples], alike"
        )
    if not theirs[0]:
        raise ValueError("theirs found nothing at all: no difference can be a part of it")
    differences = ours - theirs
    relative = differences / np.maximum(theirs, np.finfo(np.float64).tiny)
    return Difference(
        absolute=float(differences[0]),
        interval=_interval(differences[1:]),
        relative=float(relative[0]),
        relative_interval=_interval(relative[1:]),
        p_value=_p_value(differences[1:]),
    )


def holm(p_values: ArrayLike) -> Draws:
    """Adjust p-values of one family by Holm's step-down method, in the order given.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * factors))
    return adjusted


def _interval(values: Draws) -> tuple[float, float]:
    low, high = np.percentile(values, TAILS)
    return float(low), float(high)


def _p_value(differences: Draws) -> float:
    """Double the smaller share of resamples on a side of 0, the sample itself counted."""
    least = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (least + 1) / (len(differences) + 1)))
