"""Open a published bundle: validate every file, then memory-map it.

Digests detect accidental damage. The FAISS and ONNX readers are not hardened against malicious
files: open only bundles from a trusted publisher.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.ann.index import ItemIndex
from index.arrays import Floats, Offsets, Rows, open_array, save_array
from index.bundle.manifest import Manifest, name_faults, read_manifest
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
from index.errors import BundleError, InvalidBundleError, UnavailableBundleError, is_machine_fault
from index.ids import IdTable, open_id_table
from index.metadata import Attributes, Filters, open_attributes


@dataclass(frozen=True)
class StoredHistories:
    """Full histories of all known users: item rows, oldest first (CSR).

    Attributes:
        users: Ids of the users, one per history.
        offsets: [users + 1]
        rows: [count]
    """

    users: IdTable
    offsets: Offsets
    rows: Rows

    def get(self, user_id: str) -> Rows | None:
        """Return the history of a user, None if unknown."""
        row = self.users.row_of(user_id)
        return None if row < 0 else self.rows[self.offsets[row] : self.offsets[row + 1]]

    def save(self, folder: Path) -> None:
        """Write the files of `manifest.HISTORIES`."""
        self.users.save(folder, "user_ids")
        save_array(folder / "histories.offsets.npy", self.offsets)
        save_array(folder / "histories.rows.npy", self.rows)


@dataclass(frozen=True)
class Bundle:
    """Open bundle, immutable.

    Attributes:
        vectors: [items, dim], unit norm.
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
        """Version under which the bundle is published."""
        return self.folder.name


def open_bundle(folder: Path) -> Bundle:
    """Open a bundle: validate digests, shapes and version, and run the self-test.

    Raises:
        InvalidBundleError: Lists every fault of the first step that finds any.
        UnavailableBundleError: This machine cannot open it now; the bundle may be valid.
    """
    try:
        return _open(folder)
    except Exception as error:
        if isinstance(error, BundleError) or not is_machine_fault(error):
            raise
        raise UnavailableBundleError(
            f"bundle {folder}: cannot be opened now: {_first_line(error)}; expected enough memory "
            "and file descriptors and a readable disk; correct that, then retry"
        ) from error


def _open(folder: Path) -> Bundle:
    manifest = read_manifest(folder)
    _raise_faults(folder, changed_files(folder, manifest))
    files = _Files(folder)
    bundle = _read(files, manifest)
    self_test = files.read("self_test.npz", open_self_test)
    _raise_faults(folder, files.faults)
    _raise_faults(folder, _mismatches(bundle))
    _raise_faults(folder, _run_self_test(self_test, bundle))
    _raise_faults(folder, name_faults(folder))
    return bundle


class _Files:
    """Reads the files of a bundle and collects the faults."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []

    def read(self, name: str, reader: Callable[..., Any], *more: object) -> Any:  # noqa: ANN401  # depends on the reader
        """Read a file; on failure record a fault and return None."""
        try:
            return reader(self.folder / name, *more)
        except Exception as error:  # whatever a third-party reader raises
            if is_machine_fault(error):
                raise
            self.faults.append(f"{name}: cannot be read: {_first_line(error)}")
            return None  # not used: open_bundle raises on faults first

    def ids(self, name: str) -> Any:  # noqa: ANN401  # an IdTable, or None with a fault
        """Open an id table."""
        return self.read(name, lambda _: open_id_table(self.folder, name))


def _read(files: _Files, manifest: Manifest) -> Bundle:
    """Read all files of the manifest; None for those with faults."""
    has_item_encoder = "item_encoder.onnx" in manifest.files
    return Bundle(
        folder=files.folder,
        manifest=manifest,
        items=files.ids("item_ids"),
        vectors=files.read("item_vectors.npy", open_array, "float32", 2),
        counts=files.read("item_counts.npy", open_array, "int64"),
        index=files.read(
            "items.faiss", lambda path: ItemIndex.open(path).with_policies(manifest.index.policies)
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


def _run_self_test(self_test: SelfTest, bundle: Bundle) -> list[str]:
    try:
        return self_test.run(bundle.user_encoder, bundle.index, bundle.vectors)
    except Exception as error:  # ONNX graphs and indexes may fail only when run
        if is_machine_fault(error):
            raise
        return [f"self_test.npz: cannot be run: {_first_line(error)}"]


def _raise_faults(folder: Path, faults: list[str]) -> None:
    if faults:
        raise InvalidBundleError(f"bundle {folder}", faults)


def _mismatches(bundle: Bundle) -> list[str]:
    """Check the files against the manifest and each other; return the faults."""
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
        ("items.faiss holds items", bundle.index.num_items, items),
        ("items.faiss has the width", bundle.index.dim, dim),
        ("user_encoder.onnx has the width", bundle.user_encoder.embedding_dim, dim),
        *id_checks("item_ids", bundle.items, items),
    ]
    if encoder := bundle.item_encoder:
        checks.append(("item_encoder.onnx has the width", encoder.embedding_dim, dim))
        checks.append(("item_encoder.onnx reads", encoder.modalities, list(manifest.modalities)))
    if clusters := bundle.clusters:
        version = manifest.cluster_maps[-1].get("version")
        checks.append(("cluster_map.json is of version", clusters.version, version))
        trained = items - sum(
            addition.count for addition in manifest.added
        )  # a map does not cover added items
        checks.append(("cluster_map holds items", len(clusters), trained))
    if histories := bundle.histories:
        users = len(histories.users)
        checks += id_checks("user_ids", histories.users, users)
        checks += csr_checks("histories", histories.offsets, histories.rows, users, items)
    return checks
