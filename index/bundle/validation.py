"""Validation of bundle files against the manifest and each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from index.arrays import Offsets, Rows, is_covering, is_within
from index.bundle.manifest import OPTIONAL, REQUIRED, Manifest, expected_files
from index.fsio import sha256_of
from index.ids import IdTable
from index.metadata import ATTRIBUTE_FILES, Attributes, Filters

SAMPLED_IDS = 64  # looked up to validate an id table

Check = tuple[str, object, object]  # description, received, expected


def failures(checks: Sequence[Check]) -> list[str]:
    """Return a line for each check that fails."""
    return [
        f"{what} {received}, expected {expected}; publish all files from one run"
        for what, received, expected in checks
        if received != expected
    ]


def changed_files(folder: Path, manifest: Manifest) -> list[str]:
    """Return faults of files that are missing, unknown or changed since publishing."""
    named = set(manifest.files)
    missing = sorted(expected_files(manifest) - named)
    unknown = sorted(named - set(REQUIRED) - set(OPTIONAL))
    faults = [f"{name}: missing in the manifest; publish again" for name in missing]
    faults += [f"{name}: unknown file in format {manifest.format}" for name in unknown]
    for name, fact in manifest.files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            faults.append(f"{name}: missing (a plain file was expected); publish again")
        elif (size := path.stat().st_size) != fact.size_bytes:
            faults.append(f"{name}: found {size} bytes, expected {fact.size_bytes}")
        elif sha256_of(path) != fact.sha256:
            faults.append(f"{name}: its content is not what was published (sha256 differs)")
    return faults


def id_checks(name: str, table: IdTable, count: int) -> list[Check]:
    """Return shape checks of an id table of `count` ids."""
    return [
        (f"{name}.offsets holds", len(table.offsets), count + 1),
        (f"{name}.offsets cover the blob:", is_covering(table.offsets, len(table.blob)), True),
        (f"{name}.hashes holds", len(table.hashes), count),
        (f"{name}.rows holds", len(table.rows), count),
        (f"{name}.rows are within range:", is_within(table.rows, count), True),
    ]


def csr_checks(name: str, offsets: Offsets, rows: Rows, count: int, items: int) -> list[Check]:
    """Return checks of a CSR array of `count` row lists."""
    return [
        (f"{name}.offsets.npy holds", len(offsets), count + 1),
        (f"{name} cover their rows:", is_covering(offsets, len(rows)), True),
        (f"{name}.rows.npy is within the items:", is_within(rows, items), True),
    ]


def id_faults(name: str, table: IdTable) -> list[str]:
    """Return faults in the text and the lookup of an id table of the right shapes."""
    if not _is_text(table):
        return [f"{name}.blob is not UTF-8 in each id; publish all files from one run"]
    if not (table.hashes[1:] > table.hashes[:-1]).all():
        return [f"{name}.hashes are not ascending; publish all files from one run"]
    sample = np.linspace(0, len(table) - 1, min(SAMPLED_IDS, len(table))).astype(np.int32)
    if not np.array_equal(table.rows_of(table.ids_of(sample)), sample):
        return [f"{name} does not map its ids to their rows; publish all files from one run"]
    return []


def _is_text(table: IdTable) -> bool:
    """Return whether the blob is UTF-8 and no id starts inside a character."""
    begins = table.offsets[:-1][table.offsets[:-1] < len(table.blob)]
    if ((table.blob[begins] & 0xC0) == 0x80).any():  # UTF-8 continuation byte
        return False
    try:
        table.blob.tobytes().decode()
    except UnicodeDecodeError:
        return False
    return True


def attribute_faults(attributes: Attributes, items: int) -> list[str]:
    """Return faults in the attributes of a bundle."""
    blob, offsets = attributes.blob, attributes.offsets
    if len(offsets) != items + 1:
        return [f"{ATTRIBUTE_FILES[1]} is for {len(offsets) - 1} items, expected {items}"]
    starts, ends = offsets[:-1], offsets[1:]
    if not is_covering(offsets, len(blob)) or (ends - starts < len("{}")).any():
        return [
            f"{ATTRIBUTE_FILES[1]} does not split the blob's {len(blob)} bytes into objects; "
            "publish all files from one run"
        ]
    are_objects = (blob[starts] == ord("{")) & (blob[ends - 1] == ord("}"))
    return [
        f"{ATTRIBUTE_FILES[0]}: row {row} is not a JSON object"
        for row in np.flatnonzero(~are_objects)[:1]
    ]


def filter_faults(filters: Filters, items: int, expected: Mapping[str, int]) -> list[str]:
    """Return faults in the filters of a bundle.

    Args:
        filters: Filters of the bundle.
        items: Number of items.
        expected: Filter attribute -> number of distinct values, from the manifest.
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
            ("filters.rows.npy is ascending in each list:", _ascends(filters), True),
            ("filter_values holds", _value_counts(filters), held),
        ]
    )


def _ascends(filters: Filters) -> bool:
    rises = filters.rows[1:] > filters.rows[:-1]
    borders = filters.offsets[1:-1] - 1  # the next row belongs to the next list
    rises[borders[(borders >= 0) & (borders < len(rises))]] = True
    return bool(rises.all())


def _value_counts(filters: Filters) -> dict[str, int] | str:
    try:
        return filters.value_counts()
    except UnicodeDecodeError as error:
        return f"text that is not UTF-8 ({error.reason})"
