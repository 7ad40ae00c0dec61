"""Write a bundle into a staged folder: all but the towers, which their trainer puts there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.ann.index import FAISS_VERSION, ItemIndex
from index.ann.tuning import IndexReport, build_item_index
from index.arrays import Floats, Rows
from index.attributes import Attributes
from index.bundle import Histories
from index.encoders import UserEncoder
from index.filters import Filters
from index.ids import build_id_table, digest_of
from index.manifest import (
    AddedFacts,
    DatasetFacts,
    IndexFacts,
    Manifest,
    facts_of,
    read_manifest,
    write_manifest,
)
from index.probe import Probe
from index.searching.scores import best_by, exact_scores

BuildIndex = Callable[[Floats, Floats, int], tuple[ItemIndex, IndexReport]]

PROBE_COUNT = 50  # candidates compared per question
CHUNK = 256  # histories encoded at once


@dataclass(frozen=True)
class RunFacts:
    """What the run knows of itself, told in the manifest."""

    name: str
    made_at: datetime
    dataset: DatasetFacts
    history_length: int
    modalities: dict[str, int]
    cluster_maps: list[dict[str, Any]]  # trained with, in order
    run: dict[str, Any]
    libraries: dict[str, str]
    seed: int
    added: Sequence[AddedFacts] = ()


@dataclass(frozen=True)
class Described:
    """What the items' own columns say of them.

    names          of the attributes that are told
    attributes     their values; None where nothing is told
    filter_counts  what can be filtered by -> how many distinct values
    filters        the lists; None where there is nothing to filter by
    """

    names: Sequence[str] = ()
    attributes: Attributes | None = None
    filter_counts: Mapping[str, int] = field(default_factory=dict)
    filters: Filters | None = None

    def save(self, folder: Path) -> None:
        """Write the files of what there is."""
        for part in (self.attributes, self.filters):
            if part is not None:
                part.save(folder)


NOTHING = Described()


@dataclass(frozen=True)
class Contents:
    """What a run made.

    vectors           [items, dim]      float32 unit rows
    counts            [items]           int64, training positives
    histories         of known users, or None to publish none
    tuning_histories  from validation, none empty: the queries that the index is tuned on
    probe_histories   a few of them, asked again at every opening
    probe_queries     [probes, dim]     the trainer's own answers to these
    described         what the items' own columns say of them
    """

    item_ids: Sequence[str]
    vectors: Floats
    counts: NDArray[np.int64]
    histories: Histories | None
    tuning_histories: Sequence[Rows]
    probe_histories: Sequence[Rows]
    probe_queries: Floats
    described: Described = NOTHING


def write_bundle(
    folder: Path, contents: Contents, facts: RunFacts, build: BuildIndex = build_item_index
) -> Manifest:
    """Complete a staged folder that holds the towers' files and `items.parquet` already."""
    encoder = UserEncoder(folder / "user_encoder.onnx", facts.history_length)
    index, card = build(contents.vectors, tuning_queries(encoder, contents), facts.seed)
    build_id_table(contents.item_ids).save(folder, "item_ids")
    np.save(folder / "item_vectors.npy", contents.vectors, allow_pickle=False)
    np.save(folder / "item_counts.npy", contents.counts, allow_pickle=False)
    index.save(folder / "items.faiss")
    if contents.histories:
        contents.histories.save(folder)
    contents.described.save(folder)
    _ask(contents, index).save(folder / "probe.npz")
    manifest = Manifest(
        made_at=facts.made_at.isoformat(timespec="seconds"),
        name=facts.name,
        items=len(contents.item_ids),
        width=contents.vectors.shape[1],
        history_length=facts.history_length,
        modalities=facts.modalities,
        item_ids_digest=digest_of(contents.item_ids),
        has_histories=contents.histories is not None,
        attributes=list(contents.described.names),
        filters=dict(contents.described.filter_counts),
        dataset=facts.dataset,
        index=IndexFacts(
            factory=card.factory,
            nprobe=card.nprobe,
            reaches={one.depth: one.reach for one in card.policies},
            steepnesses={one.depth: one.steepness for one in card.policies},
            recall=card.recall,
            faiss_version=FAISS_VERSION,
        ),
        cluster_maps=facts.cluster_maps,
        run=facts.run,
        added=list(facts.added),
        libraries=facts.libraries,
        files=facts_of(folder),
    )
    write_manifest(folder, manifest)
    return manifest


def tuning_queries(encoder: UserEncoder, contents: Contents) -> Floats:
    """Encode what the index is tuned on, some at a time: long histories are much to hold."""
    histories = contents.tuning_histories
    return np.concatenate(
        [
            encoder.encode_histories(contents.vectors, histories[first : first + CHUNK])
            for first in range(0, len(histories), CHUNK)
        ]
    )


def add_measures(folder: Path, measures: dict[str, Any]) -> Manifest:
    """Write what was measured into a staged bundle's manifest."""
    manifest = read_manifest(folder).model_copy(update={"measures": measures})
    write_manifest(folder, manifest)
    return manifest


def _ask(contents: Contents, index: ItemIndex) -> Probe:
    """Record what the index returns for the trainer's own queries."""
    count = min(PROBE_COUNT, len(contents.item_ids))
    near = index.search(contents.probe_queries, count)
    found = best_by(*near, [count] * len(near.rows))
    rows = found[:, (found >= 0).all(axis=0)]
    scores = [
        exact_scores(contents.vectors, chosen, query)
        for chosen, query in zip(rows, contents.probe_queries, strict=True)
    ]
    return Probe(contents.probe_histories, contents.probe_queries, rows, np.stack(scores))
