"""Read a dataset folder into a checked Dataset; whatever breaks a rule is told at once."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from index.arrays import Floats
from index.errors import DatasetError
from index.ingest.items import Items, read_items
from index.ingest.tables import Findings, open_source
from trainer.data.events import order_events, read_events
from trainer.data.interactions import PART_NAMES, TEST, TRAIN, VALID, Interactions, cases
from trainer.data.split import SplitName, split_events, unfit


@dataclass(frozen=True)
class Dataset:
    """Everything that a run knows of the world, read once and checked.

    item_ids      row order, which is the order of the items table, never filtered
    user_ids      in order of first appearance in the interactions
    modalities    name -> [items, width], sorted by name; a missing row is all NaN
    attributes    the items table without features, item_id as text, in row order
    split         the split applied, in words
    notes         what was dropped, counted or is worth knowing
    fingerprint   sha256 in hex over ids, interactions, parts and modalities

    Raises ValueError at birth if rows point outside or a modality has another shape.
    """

    item_ids: list[str]
    user_ids: list[str]
    interactions: Interactions
    modalities: dict[str, Floats]
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
                raise ValueError(f"row {rows.max()} points outside {len(ids)} ids")
        for name, values in self.modalities.items():
            if values.ndim != 2 or len(values) != len(self.item_ids):
                raise ValueError(f"modality {name} must be [items, width], not {values.shape}")


def load_dataset(folder: Path, split: SplitName = "auto", seed: int = 0) -> Dataset:
    """Read, check, order and split the dataset in a folder.

    seed  of whatever a split leaves to chance

    Raises DatasetError with every fault found; ValueError for an unknown split.
    """
    findings = Findings()
    if not folder.is_dir():
        raise DatasetError(str(folder), [f"{folder}: no such folder; give that of a dataset"])
    items = read_items(folder, findings)
    source = open_source(folder, "interactions", ("user_id", "item_id"), findings)
    events = None
    if source is not None:
        events = read_events(source, items.ids if items else None, findings)
        findings.faults += unfit(split, source)
    if findings.faults or items is None or events is None:
        raise DatasetError(str(folder), findings.faults)
    events = order_events(events, findings)
    done = split_events(events, split, np.random.default_rng(seed))
    findings.notes += done.notes
    interactions = Interactions(
        events.user_rows, events.item_rows, done.parts, is_ordered=events.timestamps is not None
    )
    _check_cases(interactions, done.words, len(events.user_ids), findings)
    _note_rest(folder, items, interactions, findings)
    if findings.faults:
        raise DatasetError(str(folder), findings.faults)
    return Dataset(
        item_ids=items.ids,
        user_ids=events.user_ids,
        interactions=interactions,
        modalities=items.modalities,
        attributes=items.attributes,
        split=done.words,
        notes=tuple(findings.notes),
        fingerprint=fingerprint(items.ids, events.user_ids, interactions, items.modalities),
    )


def fingerprint(
    item_ids: list[str],
    user_ids: list[str],
    interactions: Interactions,
    modalities: dict[str, Floats],
) -> str:
    """Digest what training sees: sha256, texts length-prefixed, numbers little-endian."""
    digest = hashlib.sha256()
    for texts in (item_ids, user_ids, list(modalities)):
        digest.update(len(texts).to_bytes(8, "little"))
        for text in texts:
            spelled = text.encode()
            digest.update(len(spelled).to_bytes(8, "little") + spelled)
    digest.update(bytes([interactions.is_ordered]))
    digest.update(len(interactions.parts).to_bytes(8, "little"))
    digest.update(interactions.user_rows.astype("<i4").tobytes())
    digest.update(interactions.item_rows.astype("<i4").tobytes())
    digest.update(interactions.parts.astype("i1").tobytes())
    for values in modalities.values():
        digest.update(values.shape[1].to_bytes(8, "little"))
        digest.update(values.astype("<f4").tobytes())
    return digest.hexdigest()


def _check_cases(
    interactions: Interactions, words: str, user_count: int, findings: Findings
) -> None:
    """Tell of a part that nobody is in: nothing to train on, nobody to ask about."""
    remedy = "add interactions or choose another split"
    if not (interactions.parts == TRAIN).any():
        findings.faults.append(
            f"interactions: nothing in train after the split ({words}); expected some; {remedy}"
        )
    for part in (VALID, TEST):
        asked = cases(interactions, part, user_count)
        name = PART_NAMES[part]
        if not len(asked.user_rows):
            findings.faults.append(
                f"interactions: no {name} case after the split ({words}); expected a user with "
                f"an item in {name} and an earlier part; {remedy}"
            )
        if asked.without_history_count:
            findings.notes.append(
                f"users in {name} without an earlier part, not asked about: "
                f"{asked.without_history_count:,}"
            )


def _note_rest(folder: Path, items: Items, interactions: Interactions, findings: Findings) -> None:
    """Note items that nobody took, and data files that no rule reads."""
    if idle_count := len(items.ids) - len(np.unique(interactions.item_rows)):
        findings.notes.append(f"items that nobody took: {idle_count:,}")
    data = {path for path in folder.iterdir() if path.suffix in (".parquet", ".csv", ".npy")}
    read = {path for path in data if path.stem in ("items", "interactions")}
    read |= set(folder.glob("features_?*.npy"))
    if data - read:
        names = ", ".join(sorted(path.name for path in data - read))
        findings.notes.append(f"files not read: {names}")
