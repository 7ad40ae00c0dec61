"""What files say of each other, and a line for each claim that does not hold."""

from collections.abc import Sequence

import numpy as np

from index.arrays import is_covering, is_within
from index.ids import IdTable

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
    return [
        (f"{name}.offsets holds", len(table.offsets), count + 1),
        (f"{name}.offsets cover the blob:", is_covering(table.offsets, len(table.blob)), True),
        (f"{name}.hashes holds", len(table.hashes), count),
        (f"{name}.rows holds", len(table.rows), count),
        (f"{name}.rows are within range:", is_within(table.rows, count), True),
    ]


def id_faults(name: str, table: IdTable) -> list[str]:
    """Return what is wrong with a table whose claims hold: is it text, can it be asked?"""
    if not _is_text(table):
        return [f"{name}.blob is no UTF-8, id by id; publish all files from one run"]
    if not (table.hashes[1:] > table.hashes[:-1]).all():
        return [f"{name}.hashes do not ascend; publish all files from one run"]
    sample = np.linspace(0, len(table) - 1, min(ASKED_IDS, len(table))).astype(np.int32)
    if not np.array_equal(table.rows_of(table.ids_of(sample)), sample):
        return [f"{name} does not find its own ids; publish all files from one run"]
    return []


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
