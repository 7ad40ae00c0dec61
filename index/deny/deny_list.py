"""The deny list: ids of items that are never returned, and how it is written down.

    {"sequence": 1769854500000, "count": 2, "sha256": "..."}     the head: over what follows
    "sku-00042"                                                   an id as JSON, in order
    "sku \\"7\\""

The head alone tells whether anything changed. The list knows no rows: a bundle may hold an id
or not, today or tomorrow.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from index.errors import FaultyDenyListError, TooManyDeniedError
from index.fsio import Closed

MOST_ITEMS = 100_000
ID_LENGTH = 512  # characters
HEAD_BYTES = 256  # no head is longer

Id = Annotated[str, Field(min_length=1, max_length=ID_LENGTH)]
IDS: TypeAdapter[list[str]] = TypeAdapter(list[Id])


class DenyHead(Closed):
    """What a deny list says of itself. The sequence grows with every change.

    It is the time of the change in unix milliseconds, or one more than the sequence before
    where that is larger: so it grows on even where the store forgot everything.
    """

    sequence: int = Field(ge=1)
    count: int = Field(ge=0, le=MOST_ITEMS)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class DenyList:
    """A deny list.

    ids  ascending, each once, at most MOST_ITEMS
    """

    sequence: int
    ids: tuple[str, ...]

    @cached_property
    def head(self) -> DenyHead:
        """Return what the list says of itself."""
        digest = hashlib.sha256(self._lines).hexdigest()
        return DenyHead(sequence=self.sequence, count=len(self.ids), sha256=digest)

    @property
    def _lines(self) -> bytes:
        return b"".join(json.dumps(one).encode() + b"\n" for one in self.ids)

    def written(self) -> bytes:
        """Return the list as bytes."""
        return self.head.model_dump_json().encode() + b"\n" + self._lines


def parse_head(found: bytes, place: str) -> DenyHead:
    """Read the head of a list; raises FaultyDenyListError if it is none."""
    try:
        return DenyHead.model_validate_json(found.split(b"\n", 1)[0])
    except ValidationError as error:
        raise _faulty(place, "its first line cannot be read as a head") from error


def parse_list(found: bytes, place: str) -> DenyList:
    """Read a list; raises FaultyDenyListError if it is damaged."""
    head = parse_head(found, place)
    lines = found.split(b"\n", 1)[-1]
    if hashlib.sha256(lines).hexdigest() != head.sha256:
        raise _faulty(place, "it is not what was written (sha256 differs)")
    try:
        ids = IDS.validate_json(b"[" + b",".join(lines.splitlines()) + b"]", strict=True)
    except ValidationError as error:
        raise _faulty(place, "its lines are no ids") from error
    if len(ids) != head.count or ids != sorted(set(ids)):
        raise _faulty(place, f"expected {head.count} ids in order, each once")
    return DenyList(head.sequence, tuple(ids))


def _faulty(place: str, found: str) -> FaultyDenyListError:
    remedy = (
        "write it anew with `python -m index deny set`; the list held before stays in force"
    )
    return FaultyDenyListError(place, [f"the deny list cannot be used: {found}; {remedy}"])


def next_list(before: DenyList | None, ids: Iterable[str], now_s: float) -> DenyList:
    """Return the list that follows another one.

    Raises TooManyDeniedError.
    """
    ascending = sorted(set(ids))
    if len(ascending) > MOST_ITEMS:
        raise TooManyDeniedError(
            f"the deny list: found {len(ascending):,} ids, expected at most {MOST_ITEMS:,}; "
            "leave those out of the catalogue that are gone for good"
        )
    sequence = max(before.sequence + 1 if before else 1, int(now_s * 1_000))
    return DenyList(sequence, tuple(ascending))


def is_lost(found: DenyHead | None, held: DenyList) -> bool:
    """Tell whether a store has fallen behind a list that was once its own."""
    return found is None or found.sequence < held.sequence
