"""Write a bundle into a staged folder, except the tower files that the trainer exports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.ann.index import FAISS_VERSION, ItemIndex
from index.ann.rescore import exact_scores, top_by_score
from index.ann.tuning import IndexReport, build_item_index
from index.arrays import Floats, Rows, save_array
from index.bundle.manifest import (
    IndexFacts,
    Manifest,
    RunFacts,
    measure_files,
    read_manifest,
    write_manifest,
)
from index.bundle.reader import StoredHistories
from index.bundle.self_test import SelfTest
from index.encoders import UserEncoder
from index.ids import build_id_table, digest_ids
from index.metadata import NO_METADATA, ItemMetadata

BuildIndex = Callable[[Floats, Floats], tuple[ItemIndex, IndexReport]]

VECTORS = "item_vectors.npy"
SELF_TEST_COUNT = 50  # candidates per self-test query
CHUNK = 256  # histories per encoder call


@dataclass(frozen=True)
class Contents:
    """Contents of a bundle.

    Attributes:
        vectors: [items, dim], unit norm, as in the file VECTORS of the folder.
        counts: [items] int64, training positives.
        histories: Histories of known users; None to publish none.
        tuning_histories: Non-empty validation histories, to tune the index on.
        self_test_histories: Histories of the self-test.
        self_test_queries: [queries, dim], the trainer's query vectors of the self-test.
    """

    item_ids: Sequence[str]
    vectors: Floats
    counts: NDArray[np.int64]
    histories: StoredHistories | None
    tuning_histories: Sequence[Rows]
    self_test_histories: Sequence[Rows]
    self_test_queries: Floats
    metadata: ItemMetadata = NO_METADATA


def write_bundle(
    folder: Path, contents: Contents, facts: RunFacts, build: BuildIndex = build_item_index
) -> Manifest:
    """Write the bundle into a staged folder that has tower files, `items.parquet` and vectors."""
    encoder = UserEncoder(folder / "user_encoder.onnx", facts.history_length)
    index, report = build(contents.vectors, tuning_queries(encoder, contents))
    build_id_table(contents.item_ids).save(folder, "item_ids")
    save_array(folder / "item_counts.npy", contents.counts)
    index.save(folder / "items.faiss")
    if contents.histories:
        contents.histories.save(folder)
    contents.metadata.save(folder)
    build_self_test(contents, index).save(folder / "self_test.npz")
    manifest = _manifest(folder, contents, facts, report)
    write_manifest(folder, manifest)
    return manifest


def _manifest(folder: Path, contents: Contents, facts: RunFacts, report: IndexReport) -> Manifest:
    return Manifest(
        **{name: getattr(facts, name) for name in RunFacts.model_fields},
        items=len(contents.item_ids),
        embedding_dim=contents.vectors.shape[1],
        item_ids_digest=digest_ids(contents.item_ids),
        has_histories=contents.histories is not None,
        attributes=list(contents.metadata.names),
        filters=dict(contents.metadata.filter_counts),
        index=IndexFacts(
            factory=report.factory,
            nprobe=report.nprobe,
            log_thresholds={policy.depth: policy.log_threshold for policy in report.policies},
            slopes={policy.depth: policy.slope for policy in report.policies},
            recall=report.recall,
            faiss_version=FAISS_VERSION,
        ),
        files=measure_files(folder),
    )


def tuning_queries(encoder: UserEncoder, contents: Contents) -> Floats:
    """Encode the tuning histories, in chunks to limit memory."""
    histories = contents.tuning_histories
    return np.concatenate(
        [
            encoder.encode_histories(contents.vectors, histories[first : first + CHUNK])
            for first in range(0, len(histories), CHUNK)
        ]
    )


def build_self_test(contents: Contents, index: ItemIndex) -> SelfTest:
    """Record the results of the index for the self-test queries."""
    count = min(SELF_TEST_COUNT, len(contents.item_ids))
    near = index.search(contents.self_test_queries, count)
    ranked = top_by_score(*near, [count] * len(near.rows))
    rows = ranked[:, (ranked >= 0).all(axis=0)]
    scores = [
        exact_scores(contents.vectors, chosen, query)
        for chosen, query in zip(rows, contents.self_test_queries, strict=True)
    ]
    return SelfTest(
        contents.self_test_histories, contents.self_test_queries, rows, np.stack(scores)
    )


def add_metrics(folder: Path, metrics: dict[str, Any]) -> Manifest:
    """Write the offline metrics into a staged bundle's manifest."""
    manifest = read_manifest(folder).model_copy(update={"metrics": metrics})
    write_manifest(folder, manifest)
    return manifest
