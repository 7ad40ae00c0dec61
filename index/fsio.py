"""Files that are whole or absent: atomic writes, digests, durable folders, JSON documents."""

import hashlib
import json
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Closed(BaseModel):
    """A JSON document that cannot change and has no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file in one atomic step: a reader sees the old one or the new one, whole."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=2, sort_keys=True, ensure_ascii=False)
        stream.write("\n")
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
