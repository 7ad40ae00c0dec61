"""Dataset loading: reads and validates a dataset folder, reporting all faults together."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from index.arrays import Features
from index.errors import DatasetError
from index.ingest.changes import DATA_SUFFIXES, detect_changes
from index.ingest.items import Items, read_items
from index.ingest.tables import Findings
from trainer.data.event_cache import CachedEvents, EventCache, load_events, save_events
from trainer.data.events import Events, order_events, read_events
from trainer.data.interaction_files import STEM, list_files, open_files
from trainer.data.interactions import PART_NAMES, TEST, TRAIN, VALID, Interactions, build_cases
from trainer.data.split import SplitName, split_events, validate_split

HASHED_TEXTS = 1 << 16  # of the fingerprint, at once
HASHED_ROWS = 65_536  # feature rows hashed at once


@dataclass(frozen=True)
class Dataset:
    """Validated dataset of a run.

    Attributes:
        item_ids: ids in row order, which is the order of the items table, unfiltered.
        user_ids: ids in order of first appearance in the interactions.
        interactions: interactions with their split.
        modalities: name -> [items, dim], sorted by name; a missing row is all NaN.
        attributes: items table without features, item_id as text, in row order.
        split: description of the split.
        notes: dropped rows, counts and other remarks.
        fingerprint: hex sha256 over ids, interactions, parts and modalities.

    Raises:
        ValueError: a row is out of range, or a modality has another shape.
    """

    item_ids: list[str]
    user_ids: list[str]
    interactions: Interactions
    modalities: Mapping[str, Features]
    attributes: pa.Table
    split: str
    notes: tuple[str, ...]
    fingerprint: str

    def __post_init__(self) -> None:
        for rows, ids in (
            (self.interactions.user_rows, self.user_ids),
            (self.interactions.item_rows, self.item_ids),
        ):
            if len(rows) and rows.max() >= len(ids):
                raise ValueError(f"row {rows.max()} is out of range for {len(ids)} ids")
        for name, values in self.modalities.items():
            if values.ndim != 2 or len(values) != len(self.item_ids):
                raise ValueError(f"modality {name} must be [items, dim], not {values.shape}")


def load_dataset(
    folder: Path, split: SplitName = "auto", seed: int = 0, cache: EventCache | None = None
) -> Dataset:
    """Load, validate, order and split the dataset in a folder.

    Args:
        folder: dataset folder.
        split: how to split the interactions.
        seed: random seed of the split.
        cache: where large interactions are kept in coded form for the next run.

    Raises:
        DatasetError: lists every fault of the dataset.
        ValueError: the split is unknown.
    """
    findings = Findings()
    if not folder.is_dir():
        raise DatasetError(
            str(folder), [f"{folder}: no such folder; expected a dataset folder; check the path"]
        )
    items, events = _read_tables(folder, split, findings, cache)
    if findings.faults or items is None or events is None:
        raise DatasetError(str(folder), findings.faults)
    applied = split_events(events, split, np.random.default_rng(seed))
    findings.notes += applied.notes
    interactions = Interactions(
        events.user_rows, events.item_rows, applied.parts, is_ordered=events.timestamps is not None
    )
    user_ids = events.user_ids.to_numpy(zero_copy_only=False).tolist()
    del events
    _check_cases(interactions, applied.description, len(user_ids), findings)
    _note_unused(folder, items, interactions, findings)
    if findings.faults:
        raise DatasetError(str(folder), findings.faults)
    return Dataset(
        item_ids=items.ids,
        user_ids=user_ids,
        interactions=interactions,
        modalities=items.modalities,
        attributes=items.attributes,
        split=applied.description,
        notes=tuple(findings.notes),
        fingerprint=fingerprint(items.ids, user_ids, interactions, items.modalities),
    )


def _read_tables(
    folder: Path, split: SplitName, findings: Findings, cache: EventCache | None
) -> tuple[Items | None, Events | None]:
    """Read items and ordered interactions; None where they have faults."""
    with detect_changes(folder, findings, list_files):
        items = read_items(folder, findings)
        entry = cache.find(folder, items.ids) if cache and items else None
        cached = load_events(entry, findings) if entry else None
        if cached is None:
            cached = _read_interactions(folder, split, items, findings)
        else:
            name = f"{STEM}{list_files(folder)[0].suffix}"
            findings.faults += validate_split(split, name, cached.columns)
            findings.notes += cached.notes
            entry = None
    if cached is None or findings.faults:
        return items, None
    if entry:
        save_events(entry, cached, findings)
        cached = load_events(entry, findings) or cached
    return items, cached.events


def _read_interactions(
    folder: Path, split: SplitName, items: Items | None, findings: Findings
) -> CachedEvents | None:
    """Read and order the interactions; None if they have faults."""
    first_note = len(findings.notes)
    files = open_files(folder, findings)
    if files is None:
        return None
    events = read_events(files, items.ids if items else None, findings)
    findings.faults += validate_split(split, files.name, files.schema.names)
    if events is None or findings.faults:
        return None
    events = order_events(events, findings)
    return CachedEvents(events, files.schema.names, findings.notes[first_note:])


def fingerprint(
    item_ids: list[str],
    user_ids: list[str],
    interactions: Interactions,
    modalities: Mapping[str, Features],
) -> str:
    """Compute the sha256 of the training input: length-prefixed texts, little-endian numbers."""
    digest = hashlib.sha256()
    for texts in (item_ids, user_ids, list(modalities)):
        digest.update(len(texts).to_bytes(8, "little"))
        for first in range(0, len(texts), HASHED_TEXTS):
            digest.update(_prefix_lengths(texts[first : first + HASHED_TEXTS]))
    digest.update(bytes([interactions.is_ordered]))
    digest.update(len(interactions.parts).to_bytes(8, "little"))
    digest.update(np.ascontiguousarray(interactions.user_rows, "<i4").data)
    digest.update(np.ascontiguousarray(interactions.item_rows, "<i4").data)
    digest.update(np.ascontiguousarray(interactions.parts, "i1").data)
    for values in modalities.values():
        digest.update(values.shape[1].to_bytes(8, "little"))
        for first in range(0, len(values), HASHED_ROWS):
            rows = values[first : first + HASHED_ROWS]
            digest.update(np.ascontiguousarray(rows, "<f4").data)
    return digest.hexdigest()


def _prefix_lengths(texts: list[str]) -> pa.Buffer:
    """Return the UTF-8 of texts, each after its length in 8 bytes."""
    column = pa.array(texts, pa.large_string()).cast(pa.large_binary())
    lengths = pa.py_buffer(np.ascontiguousarray(pc.binary_length(column), "<i8"))
    prefixes = pa.Array.from_buffers(pa.binary(8), len(column), [None, lengths])
    separator = pa.scalar(b"", pa.large_binary())
    joined = pc.binary_join_element_wise(prefixes.cast(separator.type), column, separator)
    return joined.buffers()[2][: pc.sum(pc.binary_length(joined)).as_py()]


def _check_cases(
    interactions: Interactions, split: str, num_users: int, findings: Findings
) -> None:
    """Report a split without training interactions, validation cases or test cases."""
    remedy = "add interactions or choose another split"
    if not (interactions.parts == TRAIN).any():
        findings.faults.append(
            f"interactions: no train interaction after the split ({split}); expected at least "
            f"one; {remedy}"
        )
    for part in (VALID, TEST):
        cases = build_cases(interactions, part, num_users)
        name = PART_NAMES[part]
        if not len(cases.user_rows):
            findings.faults.append(
                f"interactions: no {name} case after the split ({split}); expected a user with "
                f"an item in {name} and an earlier part; {remedy}"
            )
        if cases.without_history_count:
            findings.notes.append(
                f"users in {name} without an earlier part, not evaluated: "
                f"{cases.without_history_count:,}"
            )


def _note_unused(
    folder: Path, items: Items, interactions: Interactions, findings: Findings
) -> None:
    """Note items without interactions, and data files that are not used."""
    is_used = np.zeros(len(items.ids), dtype=np.bool_)
    is_used[interactions.item_rows] = True
    if unused_count := int((~is_used).sum()):
        findings.notes.append(f"items without interactions: {unused_count:,}")
    data = {path for path in folder.iterdir() if path.suffix in DATA_SUFFIXES}
    used = {path for path in data if path.stem in ("items", "interactions")}
    used |= set(folder.glob("features_?*.npy"))
    if data - used:
        names = ", ".join(sorted(path.name for path in data - used))
        findings.notes.append(f"unused files: {names}")
