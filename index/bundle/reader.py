"""Open a published bundle: every file validated, then memory-mapped.

Digests guard against accidents. FAISS and ONNX readers are not hardened against malice: open
only bundles from a publisher you trust.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.ann.index import ItemIndex
from index.arrays import Floats, Offsets, Rows, open_array, save_array
from index.bundle.manifest import Manifest, misnamed, read_manifest
from index.bundle.self_test import SelfTest, open_self_test
from index.bundle.validation import (
    Check,
    attribute_faults,
    changed_files,
    csr_checks,
    failures,
    filter_faults,
    id_checks,
    id_faults,
)
from index.cluster_map import ClusterMap
from index.cluster_map_io import open_cluster_map
from index.encoders import ItemEncoder, UserEncoder
from index.errors import InvalidBundleError
from index.ids import IdTable, open_id_table
from index.metadata import Attributes, Filters, open_attributes


@dataclass(frozen=True)
class StoredHistories:
    """Every known user's whole history: item rows, oldest first (CSR).

    Attributes:
        users: Ids of the users, one per history.
        offsets: [users + 1]
        rows: [count]
    """

    users: IdTable
    offsets: Offsets
    rows: Rows

    def of(self, user_id: str) -> Rows | None:
        """Return a user's history, or None where the user is unknown."""
        row = self.users.row_of(user_id)
        return None if row < 0 else self.rows[self.offsets[row] : self.offsets[row + 1]]

    def save(self, folder: Path) -> None:
        """Write the files named in `manifest.HISTORIES`."""
        self.users.save(folder, "user_ids")
        save_array(folder / "histories.offsets.npy", self.offsets)
        save_array(folder / "histories.rows.npy", self.rows)


@dataclass(frozen=True)
class Bundle:
    """One published bundle; nothing in it changes while it is open.

    Attributes:
        vectors: [items, dim] unit rows.
        counts: [items] int64, training positives per item.
    """

    folder: Path
    manifest: Manifest
    items: IdTable
    vectors: Floats
    counts: NDArray[np.int64]
    index: ItemIndex
    user_encoder: UserEncoder
    item_encoder: ItemEncoder | None
    clusters: ClusterMap | None
    histories: StoredHistories | None
    attributes: Attributes | None
    filters: Filters | None

    @property
    def version(self) -> str:
        """The name under which it is published."""
        return self.folder.name


def open_bundle(folder: Path) -> Bundle:
    """Open a bundle: digests, counts and widths, the self-test, its name; never half of one.

    Raises InvalidBundleError, listing every fault of the first of these steps that finds any.
    """
    manifest = read_manifest(folder)
    _refuse(folder, changed_files(folder, manifest))
    files = _Files(folder)
    bundle = _read(files, manifest)
    self_test = files.read("self_test.npz", open_self_test)
    _refuse(folder, files.faults)
    _refuse(folder, _mismatches(bundle))
    _refuse(folder, _run(self_test, bundle))
    _refuse(folder, misnamed(folder))
    return bundle


class _Files:
    """Reads one file after the other and collects the faults."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []

    def read(self, name: str, reader: Callable[..., Any], *more: object) -> Any:  # noqa: ANN401  # a foreign reader's own
        """Return what the reader makes of a file; where it fails, note the fault."""
        try:
            return reader(self.folder / name, *more)
        except Exception as error:  # whatever a foreign reader raises, the file is at fault
            self.faults.append(f"{name}: cannot be read: {_first_line(error)}")
            return None  # never seen: faults are refused before anyone looks

    def ids(self, name: str) -> Any:  # noqa: ANN401  # an IdTable, or None with a fault
        """Open a table of ids."""
        return self.read(name, lambda _: open_id_table(self.folder, name))


def _read(files: _Files, manifest: Manifest) -> Bundle:
    """Read all files that the manifest names; None for one at fault."""
    has_item_encoder = "item_encoder.onnx" in manifest.files
    return Bundle(
        folder=files.folder,
        manifest=manifest,
        items=files.ids("item_ids"),
        vectors=files.read("item_vectors.npy", open_array, "float32", 2),
        counts=files.read("item_counts.npy", open_array, "int64"),
        index=files.read(
            "items.faiss",
            lambda path: ItemIndex.open(path).with_policies(manifest.index.policies),
        ),
        user_encoder=files.read("user_encoder.onnx", UserEncoder, manifest.history_length),
        item_encoder=files.read("item_encoder.onnx", ItemEncoder) if has_item_encoder else None,
        clusters=files.read("cluster_map", lambda path: open_cluster_map(path.parent))
        if manifest.cluster_maps
        else None,
        histories=StoredHistories(files.ids("user_ids"), *_csr(files, "histories"))
        if manifest.has_histories
        else None,
        attributes=files.read("attributes", lambda path: open_attributes(path.parent))
        if manifest.attributes
        else None,
        filters=Filters(files.ids("filter_values"), *_csr(files, "filters"))
        if any(manifest.filters.values())
        else None,
    )


def _csr(files: _Files, name: str) -> tuple[Offsets, Rows]:
    offsets: Offsets = files.read(f"{name}.offsets.npy", open_array, "int64")
    rows: Rows = files.read(f"{name}.rows.npy", open_array, "int32")
    return offsets, rows


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


def _run(self_test: SelfTest, bundle: Bundle) -> list[str]:
    try:
        return self_test.run(bundle.user_encoder, bundle.index, bundle.vectors)
    except Exception as error:  # what a graph or an index cannot do, it says only when run
        return [f"self_test.npz: cannot be asked: {_first_line(error)}"]


def _refuse(folder: Path, faults: list[str]) -> None:
    if faults:
        raise InvalidBundleError(f"bundle {folder}", faults)


def _mismatches(bundle: Bundle) -> list[str]:
    """Compare what the files say of each other; a line for each that differs."""
    items, histories = bundle.manifest.items, bundle.histories
    faults = failures(_checks(bundle))
    if not faults:
        faults = id_faults("item_ids", bundle.items)
        faults += id_faults("user_ids", histories.users) if histories else []
    if bundle.attributes is not None:
        faults += attribute_faults(bundle.attributes, items)
    if bundle.filters is not None:
        faults += filter_faults(bundle.filters, items, bundle.manifest.filters)
    return faults


def _checks(bundle: Bundle) -> list[Check]:
    manifest = bundle.manifest
    items, dim = manifest.items, manifest.embedding_dim
    checks: list[Check] = [
        ("item_vectors.npy holds", bundle.vectors.shape, (items, dim)),
        ("item_counts.npy holds", bundle.counts.shape, (items,)),
        ("items.faiss holds items", bundle.index.count, items),
        ("items.faiss has the width", bundle.index.dim, dim),
        ("user_encoder.onnx has the width", bundle.user_encoder.width, dim),
        *id_checks("item_ids", bundle.items, items),
    ]
    if encoder := bundle.item_encoder:
        checks.append(("item_encoder.onnx has the width", encoder.width, dim))
        checks.append(("item_encoder.onnx reads", encoder.modalities, list(manifest.modalities)))
    if clusters := bundle.clusters:
        version = manifest.cluster_maps[-1].get("version")
        checks.append(("cluster_map.json is of version", clusters.version, version))
        trained = items - sum(one.count for one in manifest.added)  # a map is not extended
        checks.append(("cluster_map holds items", len(clusters), trained))
    if histories := bundle.histories:
        users = len(histories.users)
        checks += id_checks("user_ids", histories.users, users)
        checks += csr_checks("histories", histories.offsets, histories.rows, users, items)
    return checks
