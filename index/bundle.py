"""A published bundle, opened: every file checked, then memory-mapped.

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
from index.arrays import Floats, Rows, is_covering, is_within, open_array
from index.attributes import Attributes, open_attributes
from index.claims import Claim, broken, id_claims, id_faults
from index.cluster_map import ClusterMap
from index.clusters.files import open_cluster_map
from index.encoders import ItemEncoder, UserEncoder
from index.errors import FaultyBundleError
from index.files import sha256_of
from index.filters import Filters
from index.ids import IdTable, open_id_table
from index.manifest import OPTIONAL, REQUIRED, Manifest, read_manifest, wanted_files
from index.probe import Probe, open_probe, replay
from index.version import misnamed


@dataclass(frozen=True)
class Histories:
    """Every known user's whole history: item rows, oldest first, CSR.

    users    ids of the users, one per history
    offsets  [users + 1]  int64
    rows     [count]      int32
    """

    users: IdTable
    offsets: NDArray[np.int64]
    rows: Rows

    def of(self, user_id: str) -> Rows | None:
        """Return a user's history, or None where the user is unknown."""
        row = self.users.row_of(user_id)
        if row < 0:
            return None
        return self.rows[self.offsets[row] : self.offsets[row + 1]]

    def save(self, folder: Path) -> None:
        """Write the files named in `manifest.HISTORIES`."""
        self.users.save(folder, "user_ids")
        np.save(folder / "histories.offsets.npy", self.offsets, allow_pickle=False)
        np.save(folder / "histories.rows.npy", self.rows, allow_pickle=False)


@dataclass(frozen=True)
class Bundle:
    """One published whole; nothing in it changes while it is open.

    vectors  [items, dim]  float32 unit rows
    counts   [items]       int64, training positives per item
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
    histories: Histories | None
    attributes: Attributes | None
    filters: Filters | None

    @property
    def version(self) -> str:
        """Return the name under which it is published."""
        return self.folder.name


def open_bundle(folder: Path) -> Bundle:
    """Open a bundle: digests, counts and widths, the probe, its name; never half of one.

    Raises FaultyBundleError, listing every fault of the first of these steps that finds any.
    """
    manifest = read_manifest(folder)
    _refuse(folder, _changed_files(folder, manifest))
    parts = _Parts(folder)
    bundle = Bundle(
        folder=folder,
        manifest=manifest,
        items=parts.read("item_ids", lambda: open_id_table(folder, "item_ids")),
        vectors=parts.array("item_vectors.npy", "float32", ndim=2),
        counts=parts.array("item_counts.npy", "int64"),
        index=parts.read(
            "items.faiss",
            lambda: _index(folder, manifest),
        ),
        user_encoder=parts.read(
            "user_encoder.onnx",
            lambda: UserEncoder(folder / "user_encoder.onnx", manifest.history_length),
        ),
        item_encoder=_item_encoder(parts, manifest),
        clusters=_clusters(parts, manifest),
        histories=_histories(parts, manifest),
        attributes=_attributes(parts, manifest),
        filters=_filters(parts, manifest),
    )
    probe = parts.read("probe.npz", lambda: open_probe(folder / "probe.npz"))
    _refuse(folder, parts.faults)
    _refuse(folder, _mismatches(bundle))
    _refuse(folder, _probed(bundle, probe))
    _refuse(folder, misnamed(folder))
    return bundle


class _Parts:
    """Reads one file after the other and remembers what could not be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []

    def read(self, name: str, reader: Callable[[], Any]) -> Any:  # noqa: ANN401  # a foreign reader's own
        """Return what the reader makes; where it fails, note the fault."""
        try:
            return reader()
        except Exception as error:  # whatever a foreign reader raises, the file is at fault
            self.faults.append(f"{name}: cannot be read: {_first_line(error)}")
            return None  # never seen: faults are refused before anyone looks

    def array(self, name: str, dtype: str, ndim: int = 1) -> Any:  # noqa: ANN401  # of this dtype
        """Open an .npy file memory-mapped."""
        return self.read(name, lambda: open_array(self.folder / name, dtype, ndim))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


def _probed(bundle: Bundle, probe: Probe) -> list[str]:
    try:
        return replay(probe, bundle.user_encoder, bundle.index, bundle.vectors)
    except Exception as error:  # what a graph or an index cannot do, it says only when asked
        return [f"probe.npz: cannot be asked: {_first_line(error)}"]


def _refuse(folder: Path, faults: list[str]) -> None:
    if faults:
        raise FaultyBundleError(f"bundle {folder}", faults)


def _changed_files(folder: Path, manifest: Manifest) -> list[str]:
    faults = [
        f"{name}: the manifest does not name it"
        for name in sorted(wanted_files(manifest) - set(manifest.files))
    ]
    unknown = set(manifest.files) - set(REQUIRED) - set(OPTIONAL)
    faults += [f"{name}: not a file of format {manifest.format}" for name in sorted(unknown)]
    for name, fact in manifest.files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            faults.append(f"{name}: missing (a plain file was expected); publish again")
        elif (size := path.stat().st_size) != fact.size_bytes:
            faults.append(f"{name}: {size} bytes, the manifest says {fact.size_bytes}")
        elif sha256_of(path) != fact.sha256:
            faults.append(f"{name}: its content is not what was published (sha256 differs)")
    return faults


def _index(folder: Path, manifest: Manifest) -> ItemIndex:
    return ItemIndex.open(folder / "items.faiss").with_policies(manifest.index.policies)


def _item_encoder(parts: _Parts, manifest: Manifest) -> ItemEncoder | None:
    name = "item_encoder.onnx"
    if name not in manifest.files:
        return None
    encoder: ItemEncoder = parts.read(name, lambda: ItemEncoder(parts.folder / name))
    return encoder


def _clusters(parts: _Parts, manifest: Manifest) -> ClusterMap | None:
    if not manifest.cluster_maps:
        return None
    clusters: ClusterMap = parts.read("cluster_map", lambda: open_cluster_map(parts.folder))
    return clusters


def _attributes(parts: _Parts, manifest: Manifest) -> Attributes | None:
    if not manifest.attributes:
        return None
    found: Attributes = parts.read("attributes", lambda: open_attributes(parts.folder))
    return found


def _filters(parts: _Parts, manifest: Manifest) -> Filters | None:
    if not any(manifest.filters.values()):
        return None
    keys = parts.read("filter_values", lambda: open_id_table(parts.folder, "filter_values"))
    offsets: NDArray[np.int64] = parts.array("filters.offsets.npy", "int64")
    rows: Rows = parts.array("filters.rows.npy", "int32")
    return Filters(keys, offsets, rows)


def _histories(parts: _Parts, manifest: Manifest) -> Histories | None:
    if not manifest.has_histories:
        return None
    users = parts.read("user_ids", lambda: open_id_table(parts.folder, "user_ids"))
    offsets: NDArray[np.int64] = parts.array("histories.offsets.npy", "int64")
    rows: Rows = parts.array("histories.rows.npy", "int32")
    return Histories(users, offsets, rows)


def _mismatches(bundle: Bundle) -> list[str]:
    """Compare what the files say of each other; a line for each that differs."""
    manifest = bundle.manifest
    items, width = manifest.items, manifest.width
    claims: list[Claim] = [
        ("item_vectors.npy holds", bundle.vectors.shape, (items, width)),
        ("item_counts.npy holds", bundle.counts.shape, (items,)),
        ("items.faiss holds items", bundle.index.count, items),
        ("items.faiss has the width", bundle.index.dim, width),
        ("user_encoder.onnx has the width", bundle.user_encoder.width, width),
        *id_claims("item_ids", bundle.items, items),
    ]
    if bundle.item_encoder:
        claims.append(("item_encoder.onnx has the width", bundle.item_encoder.width, width))
        claims.append(
            (
                "item_encoder.onnx reads",
                bundle.item_encoder.modalities,
                list(manifest.modalities),
            )
        )
    if bundle.clusters:
        version = manifest.cluster_maps[-1].get("version")
        claims.append(("cluster_map.json is of version", bundle.clusters.version, version))
        trained = items - sum(one.count for one in manifest.added)  # a map is not extended
        claims.append(("cluster_map holds items", len(bundle.clusters), trained))
    if bundle.histories:
        claims += _history_claims(bundle.histories, items)
    faults = broken(claims)
    if not faults:
        faults = id_faults("item_ids", bundle.items)
        faults += id_faults("user_ids", bundle.histories.users) if bundle.histories else []
    if bundle.attributes is not None:
        faults += bundle.attributes.faults(items)
    if bundle.filters is not None:
        faults += bundle.filters.faults(items, manifest.filters)
    return faults


def _history_claims(histories: Histories, items: int) -> list[Claim]:
    users = len(histories.users)
    return [
        *id_claims("user_ids", histories.users, users),
        ("histories.offsets.npy holds", len(histories.offsets), users + 1),
        (
            "histories cover their rows:",
            is_covering(histories.offsets, len(histories.rows)),
            True,
        ),
        ("histories.rows.npy is is_within the items:", is_within(histories.rows, items), True),
    ]
