"""File utilities: bounded reads, atomic and durable writes, digests, JSON documents."""

import argparse
import errno
import hashlib
import json
import math
import os
import re
import secrets
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

MAX_INTEGER = 2**53 - 1  # every JSON reader represents it exactly
MAX_DOCUMENT_BYTES = 1 << 24  # of a JSON document in a file; manifests have a few kB


class FrozenModel(BaseModel):
    """Immutable JSON document that rejects unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def parse_json(cls, content: bytes) -> Self:
        """Parse a document, also rejecting what other readers would not read alike.

        Raises:
            ValueError: It is invalid, has a duplicate key, or a number out of range.
        """
        document = cls.model_validate_json(content)  # first: it also bounds the depth
        json.loads(
            content,
            object_pairs_hook=_reject_duplicates,
            parse_int=_parse_integer,
            parse_float=_parse_finite,
            parse_constant=_parse_finite,
        )
        return document


def list_duplicate_keys(pairs: Sequence[tuple[str, Any]]) -> list[str]:
    """Return the keys that a JSON object, as pairs, has more than once."""
    return [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]


def _reject_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if duplicates := list_duplicate_keys(pairs):
        raise ValueError(f"found the key {duplicates[0][:40]!r} twice, expected it once")
    return dict(pairs)


def _parse_integer(text: str) -> int:
    if len(text) > len(str(-MAX_INTEGER)) or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"found the integer {text[:40]}, expected at most {MAX_INTEGER}")
    return int(text)


def _parse_finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"found the number {text[:40]}, expected a finite one")
    return float(text)


def faults_of(error: ValueError) -> list[str]:
    """Describe the errors of a document, one line per location in it."""
    if not isinstance(error, ValidationError):
        return [f"the file: {error}"]
    return [
        f"{'.'.join(str(step) for step in fault['loc']) or 'the file'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False)
    ]


def parse_path(text: str) -> Path:
    """Parse a path of the command line; raises ArgumentTypeError on a URL.

    Python would take `s3://bundles` for a folder named `s3:`.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise argparse.ArgumentTypeError(
            f"found the URL {text!r}, expected a path; mount or copy it, and pass the local path"
        )
    return Path(text)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; never waits for the writer of a FIFO.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is a FIFO or a device.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise ValueError(f"{path}: found no regular file, expected one; replace it")
    return os.fdopen(handle, "rb")


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most `max_bytes`.

    Raises:
        OSError: It cannot be read.
        ValueError: It is larger, or not a regular file.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > max_bytes:
            raise ValueError(f"{path}: found {size:,} bytes, expected at most {max_bytes:,}")
        return stream.read(size)


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file atomically: a reader sees the complete old or new content."""
    content = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    write_atomic(path, [f"{content}\n".encode()])


def write_atomic(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Replace a file atomically; a killed writer leaves `.{name}.{number}` in the folder."""
    temporary = path.with_name(f".{path.name}.{secrets.randbits(64)}")
    try:
        with temporary.open("xb") as stream:
            stream.writelines(chunks)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error says more
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk (a power failure may undo a rename)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Sync all files of a folder to disk, then the folder itself."""
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    sync_folder(folder)


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file's bytes."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
