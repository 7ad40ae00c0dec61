"""Files that are whole or absent: atomic writes, digests, durable folders, JSON documents."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError


class FrozenModel(BaseModel):
    """A JSON document that cannot change and has no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def faults_of(error: ValidationError) -> list[str]:
    """Say what is wrong with a document, a line for each place in it."""
    return [
        f"{'.'.join(str(step) for step in one['loc']) or 'the file'}: {one['msg']}"
        for one in error.errors(include_url=False, include_input=False)
    ]


def write_json(path: Path, value: object) -> None:
    """Write a JSON file in one atomic step: a reader sees the old one or the new one, whole."""
    content = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    write_atomic(path, [f"{content}\n".encode()])


def write_atomic(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Replace a file in one step; a writer that is killed leaves `.{name}.{pid}` beside it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as stream:
        stream.writelines(chunks)
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Ask the disk to remember a folder's names (a rename alone may be lost at power-off)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Ask the disk to remember every file of a folder, then the folder itself."""
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    sync_folder(folder)


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
