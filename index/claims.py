"""What files say of each other, and a line for each claim that does not hold."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.id_table import IdTable, Rows

Claim = tuple[str, object, object]  # what, found, wanted


def broken(claims: Sequence[Claim]) -> list[str]:
    """Return a line for each claim that does not hold."""
    return [
        f"{what} {found}, expected {wanted}; publish all files from one run"
        for what, found, wanted in claims
        if found != wanted
    ]


def id_claims(name: str, table: IdTable, count: int) -> list[Claim]:
    """Return what a table of so many ids must be like."""
    return [
        (f"{name}.offsets holds", len(table.offsets), count + 1),
        (f"{name}.hashes holds", len(table.hashes), count),
        (f"{name}.rows holds", len(table.rows), count),
        (f"{name}.offsets cover the blob:", covers(table.offsets, len(table.blob)), True),
        (f"{name}.rows are within range:", within(table.rows, count), True),
    ]


def covers(offsets: NDArray[np.int64], length: int) -> bool:
    """Return whether offsets start at 0, never fall, and end at the length."""
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != length:
        return False
    return bool((offsets[1:] >= offsets[:-1]).all())


def within(rows: Rows, count: int) -> bool:
    """Return whether all rows are among so many."""
    return not len(rows) or bool(rows.min() >= 0 and rows.max() < count)
