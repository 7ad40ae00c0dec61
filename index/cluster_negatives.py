"""Negatives for positives, by id: drawn from a cluster map, with the law they were drawn by.

For whoever trains elsewhere; numpy alone, so that the service can answer with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.arrays import Floats, Rows
from index.cluster_map import ClusterMap
from index.ids import IdTable


@dataclass(frozen=True)
class Counts:
    """How many negatives each positive gets, 0 or more of either kind."""

    easy: int
    hard: int


@dataclass(frozen=True)
class Drawn:
    """Negatives of rows.

    rows        [batch, easy + hard]  item rows, the easy ones first
    log_counts  [batch, easy + hard]  float32, the log of how often each is expected among the
                                      row's easy and hard draws together
    """

    rows: Rows
    log_counts: Floats


@dataclass(frozen=True)
class Negatives:
    """Negatives of ids.

    positives  the known ones, in the order asked
    ids        easy + hard for each positive, side by side; easy ones first
    unknown    positives that the table of ids does not hold
    """

    positives: list[str]
    ids: list[str]
    drawn: Drawn
    unknown: list[str]


def negatives_for(
    positives: Sequence[str],
    items: IdTable,
    clusters: ClusterMap,
    counts: Counts,
    rng: np.random.Generator,
) -> Negatives:
    """Draw negatives for each known positive, independently; a repeated one is drawn anew.

    clusters  a map of these very items, in their row order
    """
    rows = items.rows_of(positives)
    drawn = draw_negatives(rows[rows >= 0], clusters, counts, rng)
    return Negatives(
        positives=[positives[place] for place in np.flatnonzero(rows >= 0).tolist()],
        ids=items.ids_of(drawn.rows.reshape(-1)),
        drawn=drawn,
        unknown=[positives[place] for place in np.flatnonzero(rows < 0).tolist()],
    )


def draw_negatives(
    positives: Rows, clusters: ClusterMap, counts: Counts, rng: np.random.Generator
) -> Drawn:
    """Draw easy and hard negatives for each row of a map; positives [batch].

    The count of row j expected for a positive is m_easy q_easy(j) + m_hard q_hard(j): a row
    that both kinds may draw (hard ones turn easy where a cluster is one cell) counts as both.
    Source: the ESANS paper, MSAC.
    """
    easy = clusters.easy(positives, counts.easy, rng)
    hard = clusters.hard(positives, counts.hard, rng)
    rows = np.concatenate([easy, hard], axis=1)  # [batch, easy + hard]
    expected = counts.easy * clusters.easy_chance(positives, rows)
    expected += counts.hard * clusters.hard_chance(positives, rows)
    return Drawn(rows, np.log(expected).astype(np.float32))
