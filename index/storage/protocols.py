"""Storage protocols: a pointer updated by compare-and-set, and immutable versioned blobs.

A pointer is one small value. A blob store holds blobs by version and a pointer that moves in the
same transaction, so a reader sees a whole blob or none. `local` implements both in a folder,
`redis` in Redis. The content of a pointer and the lifetime of a blob are the owner's policy.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from pydantic import Field

from index.fsio import MAX_INTEGER, FrozenModel

MAX_POINTER_BYTES = 4_096
MAX_HEADER_BYTES = 1 << 20  # of a blob
CHUNK_BYTES = 1 << 19  # 512 KiB, so that one chunk does not block Redis for long
MAX_CHUNKS = 1 << 16  # 32 GiB: bounds the allocation that a damaged header can request
VERSION_PATTERN = r"^[0-9a-f]{16}$"
INVALID = b""  # read in place of a value that is too large, or not in a regular file
MAX_TIME = 253_402_300_799  # Unix seconds at the end of the year 9999

Result = TypeVar("Result")
Buffer = memoryview


class VersionPointer(FrozenModel):
    """A pointer value that names a version. Versions may go back; the sequence only grows."""

    sequence: int = Field(ge=1)
    version: str
    previous: str | None

    @classmethod
    def parse(cls, value: bytes | None) -> Self | None:
        """Parse a pointer value; None if it is not set. Raises ValueError."""
        return None if value is None else cls.parse_json(value)

    @property
    def kept_versions(self) -> set[str]:
        """Versions that must not expire."""
        return {self.version} | ({self.previous} if self.previous else set())

    def is_newer_than(self, other: "VersionPointer | None") -> bool:
        """Whether this pointer supersedes `other` (None: not set)."""
        return other is None or other.sequence < self.sequence


def next_pointer(before: VersionPointer | None, version: str, min_sequence: int) -> dict[str, Any]:
    """Build the fields of a pointer to `version` that follows `before`."""
    if before is None:
        return {"sequence": min_sequence, "version": version, "previous": None}
    return {
        "sequence": next_sequence(before.sequence, min_sequence),
        "version": version,
        "previous": before.previous if before.version == version else before.version,
    }


def next_sequence(before: int, minimum: int) -> int:
    """Return a sequence above `before`, at least `minimum`; the largest one follows itself."""
    return min(max(before + 1, minimum), MAX_INTEGER)


def bound_value(value: bytes | None, max_bytes: int) -> bytes | None:
    """Return a pointer value, INVALID if it is too large."""
    return INVALID if value is not None and len(value) > max_bytes else value


def newest_versions(versions: Sequence[str], count: int) -> set[str]:
    """Return the last `count` of the versions, which are sorted by age."""
    return {*versions[-count:]} if count else set()


class Notifications(Protocol):
    """Hints that a pointer may have moved. One may be lost, so readers still poll."""

    def wait(self, timeout_s: float) -> bool:
        """Return True on a notification, False after the timeout; never raises."""

    def close(self) -> None:
        """Stop listening."""


class Pointer(Protocol):
    """One small value, replaced atomically.

    All methods raise StoreUnreachableError; `update` also raises StoreFullError and
    ReadOnlyStoreError, and then changes nothing.
    """

    @property
    def location(self) -> str:
        """Name of the store for messages, without secrets."""

    @property
    def is_durable(self) -> bool:
        """Whether a missing value was never set; a cache may have lost it."""

    def read(self, num_bytes: int | None = None) -> bytes | None:
        """Read the value, or its first bytes; None if it is not set."""

    def update(self, plan: Callable[[bytes | None], tuple[bytes | None, Result]]) -> Result:
        """Replace the value by the result of `plan`; None leaves it unchanged.

        `plan` runs again if another writer changed the value meanwhile.
        """

    def subscribe(self) -> Notifications | None:
        """Subscribe to changes; None if the store sends no notifications."""


@dataclass(frozen=True)
class Blob:
    """A blob to store: JSON metadata and up to MAX_CHUNKS chunks of CHUNK_BYTES."""

    version: str
    meta: dict[str, Any]
    chunks: Sequence[Buffer]


class BlobHeader(FrozenModel):
    """Header stored with the chunks of a blob."""

    num_chunks: int = Field(ge=1, le=MAX_CHUNKS)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """of all chunks, in order"""
    stored_at: float = Field(ge=0, le=MAX_TIME)
    """Unix seconds"""
    meta: dict[str, Any]


@dataclass(frozen=True)
class StoredBlob:
    """A stored blob.

    Attributes:
        header: None if it is unreadable.
        read: Yields the chunks of the given sizes in bytes; None for a missing chunk.
    """

    header: BlobHeader | None
    read: Callable[[Sequence[int]], Iterable[bytes | None]]

    def read_into(self, buffers: Sequence[Buffer]) -> list[str]:
        """Read each chunk into its buffer; return the faults."""
        faults, digest = [], hashlib.sha256()
        chunks = self.read([len(buffer) for buffer in buffers])
        for number, (buffer, chunk) in enumerate(zip(buffers, chunks, strict=True)):
            if chunk is None or len(chunk) != len(buffer):
                problem = "is missing" if chunk is None else f"has {len(chunk):,} bytes"
                faults.append(f"chunk {number} {problem}, expected {len(buffer):,}")
            else:
                buffer[:] = chunk
                digest.update(chunk)
        expected = self.header.sha256 if self.header else ""
        if not faults and digest.hexdigest() != expected:
            problem = f"the chunks have sha256 {digest.hexdigest()[:16]}..."
            faults.append(f"{problem}, expected {expected[:16]}...")
        return faults


@dataclass(frozen=True)
class BlobInfo:
    """A listed blob.

    Attributes:
        has_header: Whether a header is stored, readable or not; without one the blob is expiring.
        expires_in_s: None if the blob does not expire.
    """

    version: str
    header: BlobHeader | None
    has_header: bool
    expires_in_s: float | None

    @property
    def stored_at(self) -> float:
        """Unix seconds; 0 if the header is unreadable."""
        return self.header.stored_at if self.header else 0.0


@dataclass(frozen=True)
class Snapshot:
    """State of a blob store passed to a plan; if it changes meanwhile, the plan runs again.

    Attributes:
        value: Pointer value.
        faults_of: Returns the missing parts of a blob by version; None if it is not stored.
    """

    value: bytes | None
    faults_of: Callable[[str], list[str] | None]


@dataclass(frozen=True)
class Move:
    """A pointer move.

    Attributes:
        value: New pointer value; the old value leaves the pointer unchanged.
        kept: Versions that do not expire.
        released: Versions kept until now; those not in `kept` expire after `ttl_s`.
    """

    value: bytes
    kept: set[str]
    released: set[str]
    ttl_s: float


Plan = Callable[[Snapshot], tuple[Move, Result]]
Selector = Callable[[bytes | None, list[BlobInfo]], list[str]]


class BlobStore(Protocol):
    """Blobs by version (16 hex digits) and a pointer; raises the same errors as `Pointer`."""

    @property
    def pointer(self) -> Pointer:
        """Pointer to read and subscribe to; only `commit` moves it."""

    def get(self, version: str) -> StoredBlob | None:
        """Get a blob whose chunks are read lazily; None if it is not stored."""

    def list_blobs(self) -> list[BlobInfo]:
        """List the stored blobs, oldest first."""

    def commit(self, plan: Plan[Result], blob: Blob | None = None) -> Result:
        """Move the pointer, store a blob and update expiries in one transaction.

        A blob that the move does not keep expires as well.
        """

    def delete(self, select: Selector) -> list[str]:
        """Delete the versions selected from the pointer value and the list; return them."""


def split_chunks(array: Buffer) -> list[Buffer]:
    """Split bytes into chunks of CHUNK_BYTES."""
    return [array[at : at + CHUNK_BYTES] for at in range(0, len(array), CHUNK_BYTES)]


def render_header(blob: Blob, now_s: float) -> bytes:
    """Render the header of a blob as JSON."""
    digest = hashlib.sha256()
    for chunk in blob.chunks:
        digest.update(chunk)
    count, sha256 = len(blob.chunks), digest.hexdigest()
    header = BlobHeader(num_chunks=count, sha256=sha256, stored_at=now_s, meta=blob.meta)
    return header.model_dump_json().encode()


def parse_header(header: bytes | None) -> BlobHeader | None:
    """Parse a header; None if it is missing or invalid."""
    try:
        return None if header is None else BlobHeader.parse_json(header)
    except ValueError:
        return None


def sort_by_age(infos: Iterable[BlobInfo]) -> list[BlobInfo]:
    """Sort by storage time, oldest first."""
    return sorted(infos, key=lambda info: (info.stored_at, info.version))
