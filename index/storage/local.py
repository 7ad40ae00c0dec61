"""Pointers and blobs in a folder, with the same guarantees as in Redis, by atomic renames.

    current                     the pointer
    0123456789abcdef            a blob: a header line of JSON, then its chunks
    0123456789abcdef.expires    expiry of a released blob, Unix seconds

Writers hold a lock; readers do not.
"""

import errno
import fcntl
import os
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
from index.fsio import open_regular, read_bounded, sync_folder, write_atomic
from index.storage.protocols import (
    INVALID,
    MAX_HEADER_BYTES,
    MAX_POINTER_BYTES,
    VERSION_PATTERN,
    Blob,
    BlobInfo,
    Plan,
    Result,
    Selector,
    Snapshot,
    StoredBlob,
    parse_header,
    render_header,
    sort_by_age,
)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
EXPIRY_BYTES = 64
LOCK_TIMEOUT_S = 300.0  # removing large bundles from a network volume takes minutes
LOCK_PAUSE_S = 0.01


@dataclass(frozen=True)
class Remedies:
    """Remedies quoted in error messages when a folder is unreadable, full or read-only."""

    unreadable: str
    full: str
    read_only: str


def storage_error(
    location: str, error: OSError, remedies: Remedies, *, is_writing: bool
) -> ClusterStoreError:
    """Convert a file system error to a store error."""
    message = f"{location}: {error.strerror or error} ({error.filename or 'no file'})"
    if is_writing and error.errno in FULL:
        return StoreFullError(f"{message}; {remedies.full}")
    if is_writing and error.errno in READ_ONLY:
        return ReadOnlyStoreError(f"{message}; {remedies.read_only}")
    return StoreUnreachableError(f"{message}; {remedies.unreadable}")


class LocalPointer:
    """A pointer in a file.

    Args:
        path: File that holds the value.
        lock: Name of the lock file next to it.
        remedies: Remedies for error messages; None raises OSError unchanged.
        location: Store name for messages; None uses the path.
        max_bytes: Maximum size of a value; a larger one is read as INVALID.
    """

    is_durable = True

    def __init__(
        self,
        path: Path,
        lock: str,
        remedies: Remedies | None = None,
        location: str | None = None,
        max_bytes: int = MAX_POINTER_BYTES,
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._lock = path.with_name(lock)
        self._remedies = remedies
        self.location = location or str(path)

    def read(self, num_bytes: int | None = None) -> bytes | None:
        """Read the value, or its first bytes; None if it is not set."""
        with self.wrap_os_errors(is_writing=False), suppress(FileNotFoundError):
            try:
                if num_bytes is None:
                    return read_bounded(self._path, self._max_bytes)
                with open_regular(self._path) as stream:
                    return stream.read(num_bytes)
            except ValueError:
                return INVALID
        return None

    def update(self, plan: Callable[[bytes | None], tuple[bytes | None, Result]]) -> Result:
        """Replace the value by the result of `plan`; None leaves it unchanged."""
        with self.hold_lock():
            value, result = plan(self.read())
            if value is not None:
                self.write(value)
        return result

    def write(self, value: bytes) -> None:
        """Replace the value; the lock must be held."""
        write_atomic(self._path, [value])

    def subscribe(self) -> None:
        """Return None: a folder sends no notifications."""

    @contextmanager
    def hold_lock(self) -> Iterator[None]:
        """Hold the write lock, and delete temporary files of killed writers."""
        with self.wrap_os_errors(is_writing=True), lock_file(self._lock):
            delete_matching(self._path.parent, rf"\.{re.escape(self._path.name)}\.[0-9]+")
            yield

    @contextmanager
    def wrap_os_errors(self, *, is_writing: bool) -> Iterator[None]:
        """Convert OSError to a store error."""
        try:
            yield
        except OSError as error:
            if self._remedies is None:
                raise
            raise storage_error(
                self.location, error, self._remedies, is_writing=is_writing
            ) from error


class LocalBlobStore:
    """Blobs in a folder.

    Args:
        folder: Created by the first blob.
        remedies: Remedies for error messages.
        now: Clock, Unix seconds.
    """

    def __init__(
        self, folder: Path, remedies: Remedies, now: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder
        self.pointer = LocalPointer(folder / "current", ".lock", remedies, str(folder))
        self._now = now

    def get(self, version: str) -> StoredBlob | None:
        """Get a blob whose chunks are read lazily; None if it is not stored."""
        with self.pointer.wrap_os_errors(is_writing=False):
            if not self._is_stored(version):
                return None
            header = self._header(version)
        if header is None:
            return None
        return StoredBlob(parse_header(header), lambda sizes: self._read(version, sizes))

    def list_blobs(self) -> list[BlobInfo]:
        """List the stored blobs, oldest first."""
        with self.pointer.wrap_os_errors(is_writing=False):
            stored = [version for version in self._versions() if self._is_stored(version)]
            return sort_by_age(map(self._info, stored))

    def commit(self, plan: Plan[Result], blob: Blob | None = None) -> Result:
        """Move the pointer, store a blob and update expiries under the lock.

        Only a blob creates a missing folder: its name may be misspelled.
        """
        if blob is None and not self._exists():
            return plan(Snapshot(None, self._faults_of))[1]
        with self.pointer.wrap_os_errors(is_writing=True):
            self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if blob:
                self._write(blob)
            before = self.pointer.read()
            move, result = plan(Snapshot(before, self._faults_of))
            for version in move.kept:
                self._expiry_path(version).unlink(missing_ok=True)
            if move.value != before:
                self.pointer.write(move.value)
            for version in {*self._versions()} - move.kept:
                self._set_expiry(version, move.ttl_s)
        return result

    def delete(self, select: Selector) -> list[str]:
        """Delete the selected versions and expired ones; return the selected."""
        if not self._exists():
            return []
        with self._locked():
            stored = self.list_blobs()
            selected = select(self.pointer.read(), stored)
            kept = {info.version for info in stored} - {*selected}
            for version in {*self._versions()} - kept:
                (self.folder / version).unlink(missing_ok=True)
                self._expiry_path(version).unlink(missing_ok=True)
            sync_folder(self.folder)
        return selected

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.pointer.hold_lock():
            delete_matching(self.folder, r"\.[0-9a-f]{16}(\.expires)?\.[0-9]+")
            yield

    def _exists(self) -> bool:
        with self.pointer.wrap_os_errors(is_writing=False):
            return self.folder.is_dir()

    def _versions(self) -> list[str]:
        """List all versions, including expired ones."""
        if not self.folder.is_dir():
            return []
        names = [path.name for path in self.folder.iterdir()]
        return [name for name in names if re.fullmatch(VERSION_PATTERN, name)]

    def _is_stored(self, version: str) -> bool:
        expires_at = self._expires_at(version)
        is_expired = expires_at is not None and expires_at <= self._now()
        return (self.folder / version).is_file() and not is_expired

    def _faults_of(self, version: str) -> list[str] | None:
        return [] if self._is_stored(version) else None

    def _header(self, version: str) -> bytes | None:
        """Read the first line of a blob; None if it was deleted meanwhile."""
        with suppress(FileNotFoundError, ValueError), open_regular(self.folder / version) as stream:
            return stream.readline(MAX_HEADER_BYTES)
        return None

    def _read(self, version: str, sizes: Sequence[int]) -> Iterator[bytes | None]:
        with self.pointer.wrap_os_errors(is_writing=False):
            try:
                stream = open_regular(self.folder / version)
            except (FileNotFoundError, ValueError):
                yield from (None for _ in sizes)  # deleted meanwhile
                return
            with stream:
                stream.readline(MAX_HEADER_BYTES)
                for size in sizes:
                    yield stream.read(size)

    def _info(self, version: str) -> BlobInfo:
        header, expires_at = self._header(version), self._expires_at(version)
        expires_in_s = None if expires_at is None else expires_at - self._now()
        return BlobInfo(version, parse_header(header), header is not None, expires_in_s)

    def _write(self, blob: Blob) -> None:
        """Write a blob atomically, without expiry."""
        header = render_header(blob, self._now())
        write_atomic(self.folder / blob.version, [header, b"\n", *blob.chunks])
        self._expiry_path(blob.version).unlink(missing_ok=True)

    def _expiry_path(self, version: str) -> Path:
        return self.folder / f"{version}.expires"

    def _expires_at(self, version: str) -> float | None:
        with suppress(FileNotFoundError, ValueError):
            return float(read_bounded(self._expiry_path(version), EXPIRY_BYTES))
        return None

    def _set_expiry(self, version: str, ttl_s: float) -> None:
        """Set the expiry of a version unless it has one."""
        if self._expires_at(version) is None:
            expires_at = repr(self._now() + ttl_s)
            write_atomic(self._expiry_path(version), [expires_at.encode()])


@contextmanager
def lock_file(path: Path, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold an exclusive lock on a file; raises TimeoutError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    end = time.monotonic() + timeout_s
    with os.fdopen(os.open(path, flags, 0o666), "rb", buffering=0) as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    reason = f"another process held the lock for {timeout_s:g} s"
                    raise TimeoutError(errno.ETIMEDOUT, reason, str(path)) from None
                time.sleep(LOCK_PAUSE_S)
        yield


def delete_matching(folder: Path, pattern: str) -> None:
    """Delete the hidden files whose full name matches; the caller holds the write lock."""
    for path in folder.glob(".*"):
        if re.fullmatch(pattern, path.name):
            path.unlink(missing_ok=True)
