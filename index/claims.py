"""What files say of each other, and a line for each claim that does not hold."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.hashed import Hashed, hashes_of
from index.id_table import IdTable, Rows

ASKED_IDS = 64

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
    claims: list[Claim] = [
        (f"{name}.offsets holds", len(table.offsets), count + 1),
        (f"{name}.offsets cover the blob:", covers(table.offsets, len(table.blob)), True),
    ]
    for hashes, rows, own in _hashed(name, table):
        claims += [
            (f"{hashes} holds", len(own.hashes), count),
            (f"{rows} holds", len(own.rows), count),
            (f"{rows} are within range:", within(own.rows, count), True),
        ]
    return claims


def id_faults(name: str, table: IdTable) -> list[str]:
    """Return what is wrong with a table whose claims hold: is it text, can it be asked?"""
    if not _is_text(table):
        return [f"{name}.blob is no UTF-8, id by id; publish all files from one run"]
    for hashes, _, own in _hashed(name, table):
        if not (own.hashes[1:] > own.hashes[:-1]).all():
            return [f"{hashes} do not ascend; publish all files from one run"]
    sample = np.linspace(0, len(table) - 1, min(ASKED_IDS, len(table))).astype(np.int32)
    ids = table.ids_of(sample)
    wanted = hashes_of(one.encode() for one in ids)
    places = np.searchsorted(table.hashes, wanted)
    is_named = np.array_equal(table.hashes.take(places, mode="clip"), wanted)
    found = [table.rows.take(places, mode="clip"), table.rows_of(ids)]  # by either hashes
    if not is_named or not all(np.array_equal(rows, sample) for rows in found):
        return [f"{name} does not find its own ids; publish all files from one run"]
    return []


def _hashed(name: str, table: IdTable) -> list[tuple[str, str, Hashed]]:
    """Return what a table is looked up by, and the names of its two files."""
    named = (f"{name}.hashes", f"{name}.rows", Hashed(table.hashes, table.rows))
    if table.quick is None:
        return [named]
    return [named, (f"{name}.xxh3", f"{name}.xxh3_rows", table.quick)]


def _is_text(table: IdTable) -> bool:
    """Tell whether the blob is UTF-8, and no id begins within a character."""
    begins = table.offsets[:-1][table.offsets[:-1] < len(table.blob)]
    if ((table.blob[begins] & 0xC0) == 0x80).any():  # the bytes that go on with a character
        return False
    try:
        table.blob.tobytes().decode()
    except UnicodeDecodeError:
        return False
    return True


def covers(offsets: NDArray[np.int64], length: int) -> bool:
    """Return whether offsets start at 0, never fall, and end at the length."""
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != length:
        return False
    return bool((offsets[1:] >= offsets[:-1]).all())


def within(rows: Rows, count: int) -> bool:
    """Return whether all rows are among so many."""
    return not len(rows) or bool(rows.min() >= 0 and rows.max() < count)
