"""File utilities: atomic and durable writes, digests, JSON documents."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError


class FrozenModel(BaseModel):
    """Immutable JSON document that rejects unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


def faults_of(error: ValidationError) -> list[str]:
    """Describe validation errors, one line per location in the document."""
    return [
        f"{'.'.join(str(step) for step in fault['loc']) or 'the file'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False)
    ]


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file atomically: a reader sees the complete old or new content."""
    content = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    write_atomic(path, [f"{content}\n".encode()])


def write_atomic(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Replace a file atomically; a killed writer leaves `.{name}.{pid}` in the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        stream.writelines(chunks)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
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
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
