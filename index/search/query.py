"""Queries and search results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from index.arrays import Floats, Rows
from index.ids import IdTable

Fallback = Literal["unknown_user", "empty_history", "no_known_items"]
Filter = Mapping[str, Sequence[str]]

NO_ROWS: Rows = np.empty(0, dtype=np.int32)


@dataclass(slots=True)
class Query:
    """Request for `k` candidates, for a user or similar to an item.

    Attributes:
        history: Item ids, oldest first; overrides the stored history of `user_id`.
        item_id: Return items similar to this one, instead of candidates for a user.
        exclude: Item ids that are not returned.
        exclude_seen: Whether the items of the history are excluded too.
        filter: attribute -> values; an item matches one value of each attribute.
    """

    k: int
    user_id: str | None = None
    history: Sequence[str] | None = None
    item_id: str | None = None
    exclude: Sequence[str] = ()
    exclude_seen: bool = True
    filter: Filter = field(default_factory=dict)


@dataclass(slots=True)
class SearchResult:
    """Candidates of one query; `encode` creates it, `search` completes it.

    Attributes:
        items: Id table of the catalogue.
        k: Number of requested candidates.
        vector: [dim], query vector, unit norm; None if there is nothing to encode.
        excluded: Item rows that are not returned; unordered, may contain duplicates.
        fallback: Reason of a popularity fallback; None if the query was encoded.
        unknown: Ids of the history that the bundle does not have.
        unknown_values: attribute -> filter values without items.
        rows: [candidates], best first.
        scores: [candidates], exact inner products; None for a popularity fallback.
        is_complete: False if a bounded search stopped before it had all candidates.
    """

    items: IdTable
    k: int
    vector: Floats | None = None
    excluded: Rows = field(default_factory=lambda: NO_ROWS)
    fallback: Fallback | None = None
    unknown: list[str] = field(default_factory=list)
    unknown_values: Mapping[str, list[str]] = field(default_factory=dict)
    rows: Rows = field(default_factory=lambda: NO_ROWS)
    scores: Floats | None = None
    is_complete: bool = False

    @property
    def item_ids(self) -> list[str]:
        """Ids of the candidates."""
        return self.items.ids_of(self.rows)
