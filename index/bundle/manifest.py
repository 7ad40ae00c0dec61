"""What a bundle says of itself: `manifest.json`, typed and closed."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from index.ann.probing import ProbingPolicy
from index.cluster_map import CLUSTER_FILES
from index.errors import InvalidBundleError
from index.fsio import FrozenModel, faults_of, sha256_of, write_json
from index.ids import files_of
from index.metadata import ATTRIBUTE_FILES, FILTER_FILES

MANIFEST = "manifest.json"
VERSION_PATTERN = r"^\d{8}T\d{6}Z-[0-9a-f]{4}$"  # UTC time, then DIGITS of the manifest's digest
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
Slope = Annotated[float, Field(ge=1, le=80)]  # e ** 80 is a float32 still


def _moment(told: str) -> str:
    datetime.fromisoformat(told)  # its ValueError is pydantic's to tell
    return told


Moment = Annotated[str, AfterValidator(_moment)]


class FileFact(FrozenModel):
    """One file: its size and the sha256 of its bytes."""

    size_bytes: Count
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class IndexFacts(FrozenModel):
    """The index: how it was built, and what it finds of the exact best."""

    factory: str
    nprobe: int | None = Field(ge=1)
    log_thresholds: dict[Depth, LogThreshold] = Field(
        max_length=16, description="how dense results must be in a list to probe it, by depth"
    )
    slopes: dict[Depth, Slope] = Field(
        max_length=16, description="how fast density grows with the centroid's score, by depth"
    )
    recall: dict[int, float]
    faiss_version: str

    @model_validator(mode="after")
    def _has_policies(self) -> Self:
        if self.slopes.keys() != self.log_thresholds.keys():
            raise ValueError("slopes are told of other depths than log_thresholds")
        if bool(self.log_thresholds) != (self.nprobe is not None):
            raise ValueError(
                "log_thresholds are told of an index without lists, or none of one with"
            )
        return self

    @property
    def policies(self) -> list[ProbingPolicy]:
        """Return the probing policies by depth; none where the index is exact."""
        return [
            ProbingPolicy(depth, log_threshold, self.slopes[depth])
            for depth, log_threshold in sorted(self.log_thresholds.items())
        ]


class DatasetFacts(FrozenModel):
    """What it was trained on."""

    fingerprint: str
    split: str
    is_ordered: bool
    users: Count
    interactions: Count
    training_interactions: Count
    notes: list[str]


class AddedFacts(FrozenModel):
    """Items that were added between two trainings: how many, when, and to which version."""

    to: str
    count: Annotated[int, Field(ge=1)]
    at: str = Field(description="UTC, ISO 8601")


class RunFacts(FrozenModel):
    """What the run says of itself, before anything is written."""

    created_at: Moment = Field(description="UTC, ISO 8601")
    name: str
    history_length: Annotated[int, Field(ge=1)] = Field(description="newest items that are read")
    modalities: dict[str, int] = Field(description="name -> numbers per raw row")
    dataset: DatasetFacts
    cluster_maps: list[dict[str, Any]] = Field(description="versions trained with, in order")
    added: list[AddedFacts] = Field(
        default=[], description="items added since the training, in order; not in the metrics"
    )
    run: dict[str, Any] = Field(description="the run configuration")
    libraries: dict[str, str]


class Manifest(RunFacts):
    """Everything that a reader must know before it trusts the files beside it."""

    format: Literal[1] = 1
    items: Annotated[int, Field(ge=1)]
    embedding_dim: Annotated[int, Field(ge=1)] = Field(description="numbers per vector")
    item_ids_digest: str
    has_histories: bool
    attributes: list[str] = Field(description="what is told of an item, by name")
    filters: dict[str, Count] = Field(
        description="what can be filtered by -> how many distinct values"
    )
    index: IndexFacts
    metrics: dict[str, Any] = Field(default={}, description="offline, through the same index")
    files: dict[FileName, FileFact]


def wanted_files(manifest: Manifest) -> set[str]:
    """Return the files that a bundle must have, by what its manifest says."""
    parts = (
        (REQUIRED, True),
        (HISTORIES, manifest.has_histories),
        (CLUSTER_FILES, bool(manifest.cluster_maps)),
        (ATTRIBUTE_FILES, bool(manifest.attributes)),
        (FILTER_FILES, any(manifest.filters.values())),
    )
    return {name for names, is_wanted in parts if is_wanted for name in names}


def facts_of(folder: Path) -> dict[str, FileFact]:
    """Measure every file of a bundle folder but the manifest."""
    return {
        path.name: FileFact(size_bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, last of all files: without it a folder is no bundle."""
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest.

    Raises InvalidBundleError with every fault if it is absent, unreadable or not of format 1.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidBundleError(
            str(path),
            [f"cannot be read ({error.strerror}); without a manifest it is no bundle"],
        ) from error
    except ValidationError as error:
        raise InvalidBundleError(str(path), faults_of(error)) from error


def version_of(staged: Path, now: datetime) -> str:
    """Return the version of a staged bundle: UTC time and how its manifest's digest begins."""
    digest = sha256_of(staged / MANIFEST)
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest[:DIGITS]}"


def misnamed(folder: Path) -> list[str]:
    """Return a fault if the manifest's digest is not the one in the folder's name.

    A folder of another kind of name, as while it is staged, has none.
    """
    digits = sha256_of(folder / MANIFEST)[:DIGITS]
    if not re.match(VERSION_PATTERN, folder.name) or folder.name.endswith(f"-{digits}"):
        return []
    return [
        f"{MANIFEST}: its digest begins with {digits}, the folder is {folder.name}: it was "
        "changed since it was published; publish again"
    ]
