"""Cache of the ordered interactions, so that a second run need not parse and code the files again.

An entry is one Arrow stream, which is memory-mapped, followed by its SHA-256. Its name is a digest
of all that it was computed from: the bytes of the files and the item ids.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from index.fsio import sha256_of
from index.ingest.tables import UNREADABLE_FILE, Findings, reason_of
from trainer.data.events import Events
from trainer.data.interaction_files import list_files

FORMAT = "1"  # of the entries; part of their names
KEPT = 2  # newest entries in the folder
MIN_CACHED_BYTES = 1 << 24  # of the files; smaller ones are read in a second or two
DIGEST_BYTES = 32
ABANDONED_S = 86_400  # age of a temporary file that no run is writing any more


@dataclass(frozen=True)
class CachedEvents:
    """Ordered interactions, the columns of their files, and notes on reading them."""

    events: Events
    columns: list[str]
    notes: list[str]


@dataclass(frozen=True)
class EventCache:
    """Folder of cached interactions.

    Attributes:
        folder: created when needed; if it cannot be written, nothing is cached.
        min_size_bytes: files of less than this in total are not cached.
    """

    folder: Path
    min_size_bytes: int = MIN_CACHED_BYTES

    def find(self, data: Path, item_ids: Sequence[str]) -> Path | None:
        """Return the path of the entry of a dataset folder, which may not exist.

        None if its files are small, or cannot be read, which reading them will report.
        """
        files = list_files(data)
        try:
            if sum(path.stat().st_size for path in files) < self.min_size_bytes:
                return None
            digests = [path.suffix + sha256_of(path) for path in files]
        except (OSError, ValueError):
            return None
        key = json.dumps([FORMAT, digests, list(item_ids)])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.arrow"


def load_events(path: Path, findings: Findings) -> CachedEvents | None:
    """Open an entry memory-mapped; None if there is none or, with a note, if it is damaged."""
    if not path.exists():
        return None
    try:
        content = pa.memory_map(str(path)).read_buffer()
        view = memoryview(content)
        if hashlib.sha256(view[:-DIGEST_BYTES]).digest() != bytes(view[-DIGEST_BYTES:]):
            raise ValueError("another digest than written")
        return _from_table(pa.ipc.open_stream(content[:-DIGEST_BYTES]).read_all())
    except (*UNREADABLE_FILE, KeyError) as error:
        findings.notes.append(f"the cache {path} is damaged ({reason_of(error)}) and was rebuilt")
        return None


def save_events(path: Path, cached: CachedEvents, findings: Findings) -> None:
    """Write an entry atomically, and remove old ones; note if that is not possible."""
    temporary = path.with_name(f".{path.name}.{secrets.randbits(64)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table = _to_table(cached)
        with temporary.open("xb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        digest = bytes.fromhex(sha256_of(temporary))
        with temporary.open("ab") as file:
            file.write(digest)
        temporary.replace(path)
        _remove_old(path.parent)
    except OSError as error:
        findings.notes.append(
            f"the interactions could not be cached in {path.parent} ({reason_of(error)}); the next "
            "run reads the files again unless there is space and permission to write"
        )
    finally:
        with suppress(OSError):  # usually it was renamed
            temporary.unlink()


def _remove_old(folder: Path) -> None:
    """Remove all but the newest entries, and what killed runs were writing."""
    for path in folder.glob(".*.arrow.*"):
        if time.time() - path.stat().st_mtime > ABANDONED_S:
            path.unlink(missing_ok=True)
    entries = [(path.stat().st_mtime_ns, path) for path in folder.glob("*.arrow")]
    for _, path in sorted(entries, reverse=True)[KEPT:]:
        path.unlink(missing_ok=True)  # a run that has it open keeps it


def _to_table(cached: CachedEvents) -> pa.Table:
    events = cached.events
    columns = {
        "user": pa.DictionaryArray.from_arrays(pa.array(events.user_rows), events.user_ids),
        "item_row": pa.array(events.item_rows),
        "file_row": pa.array(events.file_rows),
    }
    if events.timestamps is not None:
        columns["timestamp"] = pa.array(events.timestamps)
    if events.split_column is not None:
        columns["split"] = pa.array(events.split_column)
    facts = {"order": events.order_column, "columns": cached.columns, "notes": cached.notes}
    return pa.table(columns).replace_schema_metadata({"facts": json.dumps(facts)})


def _from_table(table: pa.Table) -> CachedEvents:
    facts = json.loads(table.schema.metadata[b"facts"])
    columns = {name: table[name].chunk(0) for name in table.column_names if name != "user"}
    arrays = {name: column.to_numpy(zero_copy_only=True) for name, column in columns.items()}
    users = table["user"].chunk(0)
    events = Events(
        user_ids=users.dictionary,
        user_rows=users.indices.to_numpy(zero_copy_only=True),
        item_rows=arrays["item_row"],
        file_rows=arrays["file_row"],
        timestamps=arrays.get("timestamp"),
        order_column=facts["order"],
        split_column=arrays.get("split"),
    )
    return CachedEvents(events, facts["columns"], facts["notes"])
