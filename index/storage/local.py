"""Pointers and blobs in a folder: the same promises as in Redis, kept by atomic renames.

    current                     the pointer
    0123456789abcdef            a blob: its header, a line of JSON, then its chunks
    0123456789abcdef.expires    unix seconds, once nothing keeps it any more

Readers need no lock, writers one.
"""

import errno
import fcntl
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from index.errors import (
    ClusterStoreError,
    ReadOnlyStoreError,
    StoreFullError,
    StoreUnreachableError,
)
from index.fsio import sync_folder, write_atomic
from index.storage.protocols import (
    VERSION_PATTERN,
    Blob,
    BlobInfo,
    Choose,
    Plan,
    Result,
    Snapshot,
    StoredBlob,
    by_age,
    header_of,
    parse_header,
)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class Remedies:
    """What a person is told to do: where a folder is unreadable, full, or read-only."""

    unreadable: str
    full: str
    read_only: str


def storage_error(
    place: str, error: OSError, remedies: Remedies, *, is_writing: bool
) -> ClusterStoreError:
    """Return what the file system says as an error of the store."""
    found = f"{place}: {error.strerror or error} ({error.filename or 'no file'})"
    if is_writing and error.errno in FULL:
        return StoreFullError(f"{found}; {remedies.full}")
    if is_writing and error.errno in READ_ONLY:
        return ReadOnlyStoreError(f"{found}; {remedies.read_only}")
    return StoreUnreachableError(f"{found}; {remedies.unreadable}")


class LocalPointer:
    """A pointer in a file.

    lock      a file beside it, held by writers
    remedies  None: what the file system says is raised as it is
    place     for people; None: the path
    """

    is_durable = True

    def __init__(
        self, path: Path, lock: str, remedies: Remedies | None = None, place: str | None = None
    ) -> None:
        self._path = path
        self._lock = path.with_name(lock)
        self._remedies = remedies
        self.place = place or str(path)

    def read(self, num_bytes: int | None = None) -> bytes | None:
        """Read the value, or its first bytes; None where there is none."""
        errors = self.named_errors(is_writing=False)
        with errors, suppress(FileNotFoundError), self._path.open("rb") as stream:
            return stream.read(num_bytes)
        return None

    def update(self, plan: Callable[[bytes | None], tuple[bytes | None, Result]]) -> Result:
        """Replace the value by what a plan makes of it; None leaves it as it is."""
        with self.locked():
            value, result = plan(self.read())
            if value is not None:
                self.write(value)
        return result

    def write(self, value: bytes) -> None:
        """Replace the value; the lock must be held."""
        write_atomic(self._path, [value])

    def subscribe(self) -> None:
        """Tell that a folder announces nothing."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock, and delete what a writer that was killed left beside the file."""
        with self.named_errors(is_writing=True), self._lock.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            sweep(self._path.parent, rf"\.{re.escape(self._path.name)}\.[0-9]+")
            yield

    @contextmanager
    def named_errors(self, *, is_writing: bool) -> Iterator[None]:
        """Turn what the file system says into an error of the store."""
        try:
            yield
        except OSError as error:
            if self._remedies is None:
                raise
            raise storage_error(self.place, error, self._remedies, is_writing=is_writing) from error


class LocalBlobStore:
    """Blobs in a folder.

    now  tells the time, in unix seconds
    """

    def __init__(
        self, folder: Path, remedies: Remedies, now: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder
        self.pointer = LocalPointer(folder / "current", ".lock", remedies, str(folder))
        self._now = now

    def get(self, version: str) -> StoredBlob | None:
        """Return a blob, its chunks not read yet; None where it is not there."""
        with self.pointer.named_errors(is_writing=False):
            if not self._is_there(version):
                return None
            header = self._header(version)
        if header is None:
            return None
        return StoredBlob(parse_header(header), lambda sizes: self._read(version, sizes))

    def list_blobs(self) -> list[BlobInfo]:
        """Return what is stored, oldest first."""
        with self.pointer.named_errors(is_writing=False):
            there = [version for version in self._versions() if self._is_there(version)]
            return by_age(map(self._info, there))

    def commit(self, plan: Plan[Result], blob: Blob | None = None) -> Result:
        """Move the pointer, put a blob, and set what expires, all under the lock.

        A folder that is not there is made for a blob only: its name may be misspelt.
        """
        if blob is None and not self._exists():
            return plan(Snapshot(None, self._faults_of))[1]
        with self.pointer.named_errors(is_writing=True):
            self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if blob:
                self._put(blob)
            before = self.pointer.read()
            move, result = plan(Snapshot(before, self._faults_of))
            for version in move.kept:
                self._expiry(version).unlink(missing_ok=True)
            if move.value != before:
                self.pointer.write(move.value)
            for version in {*self._versions()} - move.kept:
                self._expire(version, move.ttl_s)
        return result

    def delete(self, choose: Choose) -> list[str]:
        """Delete what is chosen, and what has expired; return the former."""
        if not self._exists():
            return []
        with self._locked():
            there = self.list_blobs()
            chosen = choose(self.pointer.read(), there)
            kept = {info.version for info in there} - {*chosen}
            for version in {*self._versions()} - kept:
                (self.folder / version).unlink(missing_ok=True)
                self._expiry(version).unlink(missing_ok=True)
            sync_folder(self.folder)
        return chosen

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.pointer.locked():
            sweep(self.folder, r"\.[0-9a-f]{16}\.[0-9]+")
            yield

    def _exists(self) -> bool:
        with self.pointer.named_errors(is_writing=False):
            return self.folder.is_dir()

    def _versions(self) -> list[str]:
        """Return all versions, those that have expired too."""
        if not self.folder.is_dir():
            return []
        names = [path.name for path in self.folder.iterdir()]
        return [name for name in names if re.fullmatch(VERSION_PATTERN, name)]

    def _is_there(self, version: str) -> bool:
        expires_at = self._expires_at(version)
        is_over = expires_at is not None and expires_at <= self._now()
        return (self.folder / version).is_file() and not is_over

    def _faults_of(self, version: str) -> list[str] | None:
        return [] if self._is_there(version) else None

    def _header(self, version: str) -> bytes | None:
        """Read the first line of a blob; None where it went meanwhile."""
        with suppress(FileNotFoundError), (self.folder / version).open("rb") as stream:
            return stream.readline(HEADER_BYTES)
        return None

    def _read(self, version: str, sizes: Sequence[int]) -> Iterator[bytes | None]:
        with self.pointer.named_errors(is_writing=False):
            try:
                stream = (self.folder / version).open("rb")
            except FileNotFoundError:
                yield from (None for _ in sizes)  # it went meanwhile
                return
            with stream:
                stream.readline(HEADER_BYTES)
                for size in sizes:
                    yield stream.read(size)

    def _info(self, version: str) -> BlobInfo:
        header, expires_at = self._header(version), self._expires_at(version)
        expires_in_s = None if expires_at is None else expires_at - self._now()
        return BlobInfo(version, parse_header(header), header is not None, expires_in_s)

    def _put(self, blob: Blob) -> None:
        """Write a blob in one step, to stay."""
        header = header_of(blob, self._now())
        write_atomic(self.folder / blob.version, [header, b"\n", *blob.chunks])
        self._expiry(blob.version).unlink(missing_ok=True)

    def _expiry(self, version: str) -> Path:
        return self.folder / f"{version}.expires"

    def _expires_at(self, version: str) -> float | None:
        with suppress(FileNotFoundError, ValueError):
            return float(self._expiry(version).read_text())
        return None

    def _expire(self, version: str, ttl_s: float) -> None:
        """Give a version its time, unless it has one already."""
        if self._expires_at(version) is None:
            self._expiry(version).write_text(repr(self._now() + ttl_s))


def sweep(folder: Path, pattern: str) -> None:
    """Delete files whose whole name matches; under the lock nobody writes them any more."""
    for path in folder.glob(".*"):
        if re.fullmatch(pattern, path.name):
            path.unlink(missing_ok=True)
