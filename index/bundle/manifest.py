"""Bundle manifest: the schema of `manifest.json`, its reader and writer."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from index.ann.probing import ProbingPolicy
from index.cluster_map import CLUSTER_FILES
from index.errors import InvalidBundleError, is_machine_fault
from index.fsio import (
    MAX_DOCUMENT_BYTES,
    FrozenModel,
    faults_of,
    read_bounded,
    sha256_of,
    write_json,
)
from index.ids import files_of
from index.metadata import ATTRIBUTE_FILES, FILTER_FILES

MANIFEST = "manifest.json"
VERSION_PATTERN = r"^\d{8}T\d{6}Z-[0-9a-f]{4}$"  # UTC time, DIGITS of the manifest digest
DIGITS = 4
REQUIRED = (
    *files_of("item_ids"),
    "item_vectors.npy",
    "item_counts.npy",
    "items.faiss",
    "items.parquet",
    "self_test.npz",
    "towers.safetensors",
    "user_encoder.onnx",
)
HISTORIES = (*files_of("user_ids"), "histories.offsets.npy", "histories.rows.npy")
OPTIONAL = (*HISTORIES, *CLUSTER_FILES, *ATTRIBUTE_FILES, *FILTER_FILES, "item_encoder.onnx")

FileName = Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)+$", max_length=80)]
Count = Annotated[int, Field(ge=0)]
Depth = Annotated[float, Field(ge=1)]
LogThreshold = Annotated[float, Field(ge=-50, le=50)]
Slope = Annotated[float, Field(ge=1, le=80)]  # exp(80) fits in a float32


def _validate_timestamp(text: str) -> str:
    datetime.fromisoformat(text)  # pydantic reports the ValueError
    return text


Timestamp = Annotated[str, AfterValidator(_validate_timestamp)]


class FileInfo(FrozenModel):
    """Size and digest of a file."""

    size_bytes: Count
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class IndexFacts(FrozenModel):
    """Index report: type, tuning and recall of the ANN index."""

    factory: str
    nprobe: int | None = Field(ge=1)
    log_thresholds: dict[Depth, LogThreshold] = Field(max_length=16)
    """minimum log density of results in a probed list, by depth"""
    slopes: dict[Depth, Slope] = Field(max_length=16)
    """growth of log density with the centroid score, by depth"""
    recall: dict[int, float]
    faiss_version: str

    @model_validator(mode="after")
    def _has_policies(self) -> Self:
        if self.slopes.keys() != self.log_thresholds.keys():
            raise ValueError(
                "found slopes and log_thresholds of different depths; expected the same"
            )
        if bool(self.log_thresholds) != (self.nprobe is not None):
            raise ValueError("found log_thresholds without nprobe, or nprobe without them")
        return self

    @property
    def policies(self) -> list[ProbingPolicy]:
        """Probing policies by depth; empty for an exact index."""
        return [
            ProbingPolicy(depth, log_threshold, self.slopes[depth])
            for depth, log_threshold in sorted(self.log_thresholds.items())
        ]


class DatasetFacts(FrozenModel):
    """Dataset of the training run."""

    fingerprint: str
    split: str
    is_ordered: bool
    users: Count
    interactions: Count
    training_interactions: Count
    notes: list[str]


class AddedFacts(FrozenModel):
    """Items added after training: to which version, how many, when."""

    to: str
    count: Annotated[int, Field(ge=1)]
    at: str
    """UTC, ISO 8601"""


class RunFacts(FrozenModel):
    """Metadata of a training run, known before the bundle is written."""

    created_at: Timestamp
    """UTC, ISO 8601"""
    name: str
    history_length: Annotated[int, Field(ge=1)]
    """number of newest items that the encoder reads"""
    modalities: dict[str, int]
    """modality -> feature width"""
    dataset: DatasetFacts
    cluster_maps: list[dict[str, Any]]
    """cluster maps used in training, in order"""
    added: list[AddedFacts] = Field(default=[])
    """items added after training, in order; not part of the metrics"""
    run: dict[str, Any]
    """the run configuration"""
    libraries: dict[str, str]


class Manifest(RunFacts):
    """Manifest of a bundle: metadata, and size and digest of every file."""

    format: Literal[1] = 1
    items: Annotated[int, Field(ge=1)]
    embedding_dim: Annotated[int, Field(ge=1)]
    """vector width"""
    item_ids_digest: str
    has_histories: bool
    attributes: list[str]
    """attributes of the items"""
    filters: dict[str, Count]
    """filter attribute -> number of distinct values"""
    index: IndexFacts
    metrics: dict[str, Any] = Field(default={})
    """offline metrics, measured with this index"""
    files: dict[FileName, FileInfo]


def expected_files(manifest: Manifest) -> set[str]:
    """Return the files that a bundle must have according to its manifest."""
    parts = (
        (REQUIRED, True),
        (HISTORIES, manifest.has_histories),
        (CLUSTER_FILES, bool(manifest.cluster_maps)),
        (ATTRIBUTE_FILES, bool(manifest.attributes)),
        (FILTER_FILES, any(manifest.filters.values())),
    )
    return {name for names, is_expected in parts if is_expected for name in names}


def measure_files(folder: Path) -> dict[str, FileInfo]:
    """Return size and digest of every file of a bundle folder except the manifest."""
    return {
        path.name: FileInfo(size_bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, as the last file: a folder without it is not a bundle."""
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def read_manifest(folder: Path) -> Manifest:
    """Read and validate the manifest.

    Raises:
        InvalidBundleError: It is missing or invalid; lists every fault.
        OSError: This machine cannot read it now.
    """
    path = folder / MANIFEST
    try:
        return Manifest.parse_json(read_bounded(path, MAX_DOCUMENT_BYTES))
    except OSError as error:
        if is_machine_fault(error):
            raise
        raise InvalidBundleError(
            str(path),
            [f"cannot be read ({error.strerror}); a bundle needs a manifest; publish again"],
        ) from error
    except ValueError as error:
        raise InvalidBundleError(str(path), faults_of(error)) from error


def version_of(staged: Path, now: datetime) -> str:
    """Return the version of a staged bundle: UTC time and a prefix of the manifest digest."""
    digest = sha256_of(staged / MANIFEST)
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest[:DIGITS]}"


def name_faults(folder: Path) -> list[str]:
    """Return a fault if the folder name holds another manifest digest.

    Folders that are not named after a version, such as staged ones, are not checked.
    """
    digits = sha256_of(folder / MANIFEST)[:DIGITS]
    if not re.match(VERSION_PATTERN, folder.name) or folder.name.endswith(f"-{digits}"):
        return []
    return [
        f"{MANIFEST}: found digest {digits}..., expected that of version {folder.name}: changed "
        "after publishing; publish again"
    ]
