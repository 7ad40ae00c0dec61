"""What a bundle is asked, and what it returns."""

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
    """A request for `k` candidates: for a user, or like an item.

    Attributes:
        history: item ids, oldest first; replaces the stored history of `user_id`.
        item_id: candidates like this item, without it; instead of a user.
        exclude: item ids never to return.
        exclude_seen: whether the items of the whole history are excluded too.
        filter: attribute -> values, one of which an item must have; of every attribute named.
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
    """The candidates of one query; encoding creates it, searching completes it.

    Attributes:
        items: the ids of all rows.
        k: candidates wanted.
        vector: [dim] query vector, unit norm; None where there is nothing to encode.
        excluded: item rows never to return, in any order, some perhaps twice.
        fallback: why popular items are returned; None where the query was encoded.
        unknown: ids of the history that the bundle does not hold.
        unknown_values: attribute -> values of the filter that no item has.
        rows: [candidates], best first.
        scores: [candidates] exact inner products; None for popular items.
        is_complete: whether all candidates were found; False after a bounded search that
            would have taken long.
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
        """Return the ids of the candidates."""
        return self.items.ids_of(self.rows)
