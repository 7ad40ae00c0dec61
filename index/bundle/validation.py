"""Checks of a bundle's files against its manifest and each other; faults as lines of text."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from index.arrays import Offsets, Rows, is_covering, is_within
from index.bundle.manifest import OPTIONAL, REQUIRED, Manifest, wanted_files
from index.fsio import sha256_of
from index.ids import IdTable
from index.metadata import ATTRIBUTE_FILES, Attributes, Filters

SAMPLED_IDS = 64  # looked up when a table is opened

Check = tuple[str, object, object]  # what, found, expected


def failures(checks: Sequence[Check]) -> list[str]:
    """Return a line for each check that fails."""
    return [
        f"{what} {found}, expected {expected}; publish all files from one run"
        for what, found, expected in checks
        if found != expected
    ]


def changed_files(folder: Path, manifest: Manifest) -> list[str]:
    """Return what is missing, unknown or not as published."""
    named = set(manifest.files)
    missing = sorted(wanted_files(manifest) - named)
    unknown = sorted(named - set(REQUIRED) - set(OPTIONAL))
    faults = [f"{name}: the manifest does not name it" for name in missing]
    faults += [f"{name}: not a file of format {manifest.format}" for name in unknown]
    for name, fact in manifest.files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            faults.append(f"{name}: missing (a plain file was expected); publish again")
        elif (size := path.stat().st_size) != fact.size_bytes:
            faults.append(f"{name}: {size} bytes, the manifest says {fact.size_bytes}")
        elif sha256_of(path) != fact.sha256:
            faults.append(f"{name}: its content is not what was published (sha256 differs)")
    return faults


def id_checks(name: str, table: IdTable, count: int) -> list[Check]:
    """Return the checks of the shapes of a table of so many ids."""
    return [
        (f"{name}.offsets holds", len(table.offsets), count + 1),
        (f"{name}.offsets cover the blob:", is_covering(table.offsets, len(table.blob)), True),
        (f"{name}.hashes holds", len(table.hashes), count),
        (f"{name}.rows holds", len(table.rows), count),
        (f"{name}.rows are within range:", is_within(table.rows, count), True),
    ]


def csr_checks(name: str, offsets: Offsets, rows: Rows, count: int, items: int) -> list[Check]:
    """Return the checks of `count` lists of rows, one after the other."""
    return [
        (f"{name}.offsets.npy holds", len(offsets), count + 1),
        (f"{name} cover their rows:", is_covering(offsets, len(rows)), True),
        (f"{name}.rows.npy is within the items:", is_within(rows, items), True),
    ]


def id_faults(name: str, table: IdTable) -> list[str]:
    """Return what is wrong with a table of the right shapes: its text, or its look-up."""
    if not _is_text(table):
        return [f"{name}.blob is no UTF-8, id by id; publish all files from one run"]
    if not (table.hashes[1:] > table.hashes[:-1]).all():
        return [f"{name}.hashes do not ascend; publish all files from one run"]
    sample = np.linspace(0, len(table) - 1, min(SAMPLED_IDS, len(table))).astype(np.int32)
    if not np.array_equal(table.rows_of(table.ids_of(sample)), sample):
        return [f"{name} does not find its own ids; publish all files from one run"]
    return []


def _is_text(table: IdTable) -> bool:
    """Return whether the blob is UTF-8, and no id begins within a character."""
    begins = table.offsets[:-1][table.offsets[:-1] < len(table.blob)]
    if ((table.blob[begins] & 0xC0) == 0x80).any():  # a byte that continues a character
        return False
    try:
        table.blob.tobytes().decode()
    except UnicodeDecodeError:
        return False
    return True


def attribute_faults(attributes: Attributes, items: int) -> list[str]:
    """Return what is wrong with the attributes of so many items."""
    blob, offsets = attributes.blob, attributes.offsets
    if len(offsets) != items + 1:
        return [f"{ATTRIBUTE_FILES[1]} is for {len(offsets) - 1} items, expected {items}"]
    starts, ends = offsets[:-1], offsets[1:]
    if not is_covering(offsets, len(blob)) or (ends - starts < len("{}")).any():
        return [
            f"{ATTRIBUTE_FILES[1]} does not lead from 0 to the blob's {len(blob)} bytes, "
            "object by object"
        ]
    are_objects = (blob[starts] == ord("{")) & (blob[ends - 1] == ord("}"))
    return [
        f"{ATTRIBUTE_FILES[0]}: that of row {row} is no JSON object"
        for row in np.flatnonzero(~are_objects)[:1]
    ]


def filter_faults(filters: Filters, items: int, expected: Mapping[str, int]) -> list[str]:
    """Return what is wrong with the filters of so many items.

    Args:
        filters: Of the bundle.
        items: Of the bundle.
        expected: attribute -> how many distinct values, as the manifest says.
    """
    faults = failures(
        [
            *id_checks("filter_values", filters.keys, sum(expected.values())),
            *csr_checks("filters", filters.offsets, filters.rows, len(filters.keys), items),
        ]
    )
    if faults:
        return faults
    held = {name: count for name, count in expected.items() if count}
    return failures(
        [
            ("filters.rows.npy ascends in each list:", _ascends(filters), True),
            ("filter_values holds", _value_counts(filters), held),
        ]
    )


def _ascends(filters: Filters) -> bool:
    rises = filters.rows[1:] > filters.rows[:-1]
    borders = filters.offsets[1:-1] - 1  # what follows is of the next list
    rises[borders[(borders >= 0) & (borders < len(rises))]] = True
    return bool(rises.all())


def _value_counts(filters: Filters) -> dict[str, int] | str:
    try:
        return filters.value_counts()
    except UnicodeDecodeError as error:
        return f"what is no UTF-8 ({error.reason})"
