"""What is asked of a bundle, and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from index.arrays import Floats, Rows
from index.ids import IdTable
from index.searching.scope import Key

Fallback = Literal["unknown_user", "empty_history", "no_known_items"]
Filter = Mapping[str, Sequence[str]]


@dataclass(slots=True)
class Question:
    """Which items might this user want?

    history       item ids, oldest first; replaces the stored history of `user_id` where given
    exclude       item ids never to return
    exclude_seen  whether the items of the whole history are excluded too
    filter        attribute -> values, one of which an item must have; of every attribute named
    """

    count: int
    user_id: str | None = None
    history: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    exclude_seen: bool = True
    filter: Filter = field(default_factory=dict)


@dataclass(slots=True)
class SimilarQuestion:
    """Which items are like this one? The item itself is never among them."""

    item_id: str
    count: int
    exclude: Sequence[str] = ()
    filter: Filter = field(default_factory=dict)


@dataclass(slots=True)
class Prepared:
    """A question in the index's own terms: all that is left is to search.

    query     [dim]  unit row; None where there is nothing to search with: popular items answer
    excluded  item rows never to return, in any order; some may stand there twice
    wanted    the filter
    """

    count: int
    query: Floats | None
    excluded: Rows
    wanted: Key
    fallback: Fallback | None
    unknown: list[str]
    unknown_values: Mapping[str, list[str]]


@dataclass(slots=True)
class Answer:
    """Candidates, best first.

    items           the ids of all rows
    rows            [count]  of the items
    scores          [count]  exact inner products; None where popular items were returned
    fallback        why popular items were returned; None where the history answered
    unknown         ids of the history that the bundle does not hold
    unknown_values  attribute -> values asked for that no item has
    """

    items: IdTable
    rows: Rows
    scores: Floats | None
    fallback: Fallback | None
    unknown: list[str]
    unknown_values: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def item_ids(self) -> list[str]:
        """Return the ids of the candidates."""
        return self.items.ids_of(self.rows)
