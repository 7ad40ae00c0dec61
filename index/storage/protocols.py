"""What storage offers: a pointer that moves by compare-and-set, and immutable versioned blobs.

A pointer is one small value. A blob store holds blobs under versions and one pointer that is
moved together with them: a reader sees a blob whole or not at all. `local` implements both in
a folder, `redis` in Redis. What a pointer says, and how long a blob stays, is the owner's
policy.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from pydantic import Field, ValidationError

from index.fsio import FrozenModel

CHUNK_BYTES = 1 << 19  # half a MiB: Redis answers others between two chunks
MAX_CHUNKS = 1 << 16  # 32 GiB, so that a wrong number cannot ask for a huge array
VERSION_PATTERN = r"^[0-9a-f]{16}$"

Result = TypeVar("Result")
Buffer = memoryview


class VersionPointer(FrozenModel):
    """A pointer's value that names a version. Versions may go back, the sequence only grows."""

    sequence: int = Field(ge=1)
    version: str
    previous: str | None

    @classmethod
    def parse(cls, value: bytes | None) -> Self | None:
        """Read a pointer, None where there is none; raises ValidationError."""
        return None if value is None else cls.model_validate_json(value)

    @property
    def kept(self) -> set[str]:
        """Return the versions that stay."""
        return {self.version} | ({self.previous} if self.previous else set())

    def is_newer_than(self, other: "VersionPointer | None") -> bool:
        """Tell whether a store that holds the other one has lost this one."""
        return other is None or other.sequence < self.sequence


def moved(before: VersionPointer | None, version: str, least: int) -> dict[str, Any]:
    """Return the values of a pointer to a version, which remembers the one before.

    least  the smallest sequence
    """
    if before is None:
        return {"sequence": least, "version": version, "previous": None}
    return {
        "sequence": max(before.sequence + 1, least),
        "version": version,
        "previous": before.previous if before.version == version else before.version,
    }


def newest(versions: Sequence[str], count: int) -> set[str]:
    """Return the last of the versions, which are in order."""
    return {*versions[-count:]} if count else set()


class Notifications(Protocol):
    """A hint that a pointer may have moved; one may be missed, the pointer is the truth."""

    def wait(self, timeout_s: float) -> bool:
        """Return True soon after a notification, False after the timeout; never raises."""

    def close(self) -> None:
        """Stop listening."""


class Pointer(Protocol):
    """One small value, replaced as a whole.

    All methods raise StoreUnreachableError; `update` raises StoreFullError and
    ReadOnlyStoreError, too: then nothing was changed.
    """

    @property
    def place(self) -> str:
        """Name the store for people, without secrets."""

    @property
    def is_durable(self) -> bool:
        """Tell whether a missing value was never set; a cache may have lost it."""

    def read(self, num_bytes: int | None = None) -> bytes | None:
        """Read the value, or its first bytes; None where there is none."""

    def update(self, plan: Callable[[bytes | None], tuple[bytes | None, Result]]) -> Result:
        """Replace the value by what a plan makes of it; None leaves it as it is.

        The plan is called again where others changed the value meanwhile.
        """

    def subscribe(self) -> Notifications | None:
        """Listen for changes; None where the store does not announce them."""


@dataclass(frozen=True)
class Blob:
    """A blob to be stored: JSON metadata, and at most MAX_CHUNKS chunks of CHUNK_BYTES."""

    version: str
    meta: dict[str, Any]
    chunks: Sequence[Buffer]


class BlobHeader(FrozenModel):
    """What is stored beside the chunks of a blob."""

    num_chunks: int = Field(ge=1, le=MAX_CHUNKS)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of all chunks, in order")
    stored_at: float = Field(description="unix seconds")
    meta: dict[str, Any]


@dataclass(frozen=True)
class StoredBlob:
    """A blob that is stored.

    header  None where it cannot be read
    read    the chunks of the given sizes in bytes, one by one; None for one that is missing
    """

    header: BlobHeader | None
    read: Callable[[Sequence[int]], Iterable[bytes | None]]

    def read_into(self, buffers: Sequence[Buffer]) -> list[str]:
        """Fill a buffer from each chunk; return what is wrong with them."""
        faults, digest = [], hashlib.sha256()
        chunks = self.read([len(buffer) for buffer in buffers])
        for number, (buffer, chunk) in enumerate(zip(buffers, chunks, strict=True)):
            if chunk is None or len(chunk) != len(buffer):
                found = "is missing" if chunk is None else f"has {len(chunk):,} bytes"
                faults.append(f"chunk {number} {found}, expected {len(buffer):,}")
            else:
                buffer[:] = chunk
                digest.update(chunk)
        expected = self.header.sha256 if self.header else ""
        if not faults and digest.hexdigest() != expected:
            found = f"the chunks have sha256 {digest.hexdigest()[:16]}..."
            faults.append(f"{found}, expected {expected[:16]}...; they were changed")
        return faults


@dataclass(frozen=True)
class BlobInfo:
    """A version that is listed.

    is_described  whether there is a header, readable or not; without one the blob is going
    expires_in_s  None where it stays
    """

    version: str
    header: BlobHeader | None
    is_described: bool
    expires_in_s: float | None

    @property
    def stored_at(self) -> float:
        """Return when it was stored; long ago where it does not say so."""
        return self.header.stored_at if self.header else 0.0


@dataclass(frozen=True)
class Snapshot:
    """A blob store as a plan sees it: if any of it changes meanwhile, the plan is void.

    value      the pointer's
    faults_of  what is missing of a stored blob, by version; None where it is not there at all
    """

    value: bytes | None
    faults_of: Callable[[str], list[str] | None]


@dataclass(frozen=True)
class Move:
    """How a pointer moves.

    value     what it says then; equal to what it says now where it stays
    kept      versions that do not expire
    released  versions that it kept so far; those that are not kept expire after `ttl_s`
    """

    value: bytes
    kept: set[str]
    released: set[str]
    ttl_s: float


Plan = Callable[[Snapshot], tuple[Move, Result]]
Choose = Callable[[bytes | None, list[BlobInfo]], list[str]]


class BlobStore(Protocol):
    """Blobs by version (16 hex digits), and a pointer; raises as `Pointer` does."""

    @property
    def pointer(self) -> Pointer:
        """Return the pointer, to be read and listened to; it is moved by `commit` alone."""

    def get(self, version: str) -> StoredBlob | None:
        """Return a blob, its chunks not read yet; None where it is not there."""

    def list_blobs(self) -> list[BlobInfo]:
        """Return what is stored, oldest first."""

    def commit(self, plan: Plan[Result], blob: Blob | None = None) -> Result:
        """Move the pointer, put a blob, and set what expires, all in one step.

        A blob that the move does not keep expires, too.
        """

    def delete(self, choose: Choose) -> list[str]:
        """Delete what is chosen by the pointer's value and the list; return what was."""


def split(array: Buffer) -> list[Buffer]:
    """Cut bytes into chunks."""
    return [array[at : at + CHUNK_BYTES] for at in range(0, len(array), CHUNK_BYTES)]


def header_of(blob: Blob, now_s: float) -> bytes:
    """Render the header of a blob that is about to be stored."""
    digest = hashlib.sha256()
    for chunk in blob.chunks:
        digest.update(chunk)
    count, sha256 = len(blob.chunks), digest.hexdigest()
    header = BlobHeader(num_chunks=count, sha256=sha256, stored_at=now_s, meta=blob.meta)
    return header.model_dump_json().encode()


def parse_header(found: bytes | None) -> BlobHeader | None:
    """Read a header; None where it is missing or damaged."""
    try:
        return None if found is None else BlobHeader.model_validate_json(found)
    except ValidationError:
        return None


def by_age(infos: Iterable[BlobInfo]) -> list[BlobInfo]:
    """Return the oldest first."""
    return sorted(infos, key=lambda info: (info.stored_at, info.version))
