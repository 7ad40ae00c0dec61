"""Cluster maps in a folder, for whoever has no Redis: the same promises, kept by renames.

    clusters/
      current             json {sequence, version, previous, pinned}, one atomic rename
      0123456789abcdef/   cluster_map.* of one version, made by one rename
        expires           unix seconds, once the version is superseded

Readers need no lock, writers one.
"""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from index.cluster_map import ClusterMap
from index.clusters.map_folders import LOCK, MapFolders
from index.clusters.pointer_moves import (
    after_pin,
    after_publish,
    after_roll_back,
    after_unpin,
    is_needed,
    not_there,
    parse_pointer,
)
from index.clusters.store import KEEP_COUNT, KEEP_S, ClusterPointer, ListedMap
from index.errors import ClusterStoreError, FaultyClusterMapError
from index.fsio import write_json
from index.stores.folder_faults import reading_fault, writing_fault

Fault = Callable[[str, OSError], ClusterStoreError]


class FolderClusters:
    """A ClusterStore in a folder.

    keep_s      seconds that a superseded map stays
    keep_count  how many of the newest maps stay at most, beside those the pointer names
    now         tells the time, in unix seconds
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_s: float = KEEP_S,
        keep_count: int = KEEP_COUNT,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.place = str(folder)
        self._keep_s = keep_s
        self._keep_count = keep_count
        self._now = now
        self._maps = MapFolders(folder, now)

    def pointer(self) -> ClusterPointer | None:
        """Read which map is current; None where nothing was published."""
        with self._naming_faults(reading_fault):
            try:
                found = (self.folder / "current").read_bytes()
            except FileNotFoundError:
                return None
        return parse_pointer(found, self.place)

    def read(self, version: str) -> ClusterMap:
        """Return a map, checked, all of it in memory."""
        with self._naming_faults(reading_fault):
            self._find(version)
            try:
                return self._maps.open(version)
            except FaultyClusterMapError:
                self._find(version)  # where it went meanwhile, that is what to tell
                raise

    def publish(self, found: ClusterMap) -> ClusterPointer:
        """Store a map and make it current, unless a pin holds another one."""
        with self._writing() as before:
            self._maps.put(found)
            return self._point(before, after_publish(before, found.version, self._now()))

    def seed(self, found: ClusterMap, pointer: ClusterPointer) -> bool:
        """Put a map and its pointer back where the folder has lost them."""
        with self._writing() as before:
            if not is_needed(before, pointer):
                return False
            self._maps.put(found)
            self._point(before, pointer)
            return True

    def listed(self) -> list[ListedMap]:
        """Return what is stored, oldest first."""
        with self._naming_faults(reading_fault):
            pointer = self._pointer_or_none()
            return [self._told(version, pointer) for version in self._maps.versions()]

    def pin(self, version: str | None = None) -> ClusterPointer:
        """Hold on to a version, or to the current one."""
        with self._tending() as before:
            found = before or self._unless_named(version)
            return self._point(before, after_pin(found, version, self.place, self._now()))

    def unpin(self) -> ClusterPointer:
        """Let the next map that is published become current again."""
        with self._tending() as before:
            found = before or self.pointer()
            return self._point(before, after_unpin(found, self.place, self._now()))

    def roll_back(self, version: str | None = None) -> ClusterPointer:
        """Make the version before the current one current, or the one named."""
        with self._tending() as before:
            found = before or self._unless_named(version)
            after = after_roll_back(found, version, self.place, self._now())
            return self._point(before, after)

    def prune(self, keep_count: int) -> list[str]:
        """Remove all but the newest maps; the current one and the one before it stay."""
        with self._tending() as pointer:
            return self._thin_out(pointer, keep_count)

    def announcements(self) -> None:
        """Tell that a folder announces nothing."""

    def _find(self, version: str) -> None:
        if not self._maps.has(version):
            raise not_there(self.place, version, self._maps.versions())

    def _told(self, version: str, pointer: ClusterPointer | None) -> ListedMap:
        card = self._maps.card(version)
        made = card.made if card else {}
        stored_at = datetime.fromtimestamp(self._maps.stored_at(version), UTC)
        expires_at = self._maps.expires_at(version)
        return ListedMap(
            version=version,
            items=card.items if card else 0,
            level_1_codes=card.level_1_codes if card else 0,
            made_at=str(made.get("at", stored_at.isoformat(timespec="seconds"))),
            is_current=pointer is not None and pointer.version == version,
            is_previous=pointer is not None and pointer.previous == version,
            expires_in_s=None if expires_at is None else expires_at - self._now(),
        )

    def _pointer_or_none(self) -> ClusterPointer | None:
        try:
            return self.pointer()
        except FaultyClusterMapError:
            return None  # being replaced is how a broken pointer is repaired

    def _unless_named(self, version: str | None) -> ClusterPointer | None:
        """Tell of a broken pointer, unless a version is named, which repairs it."""
        return self.pointer() if version is None else None

    def _point(self, before: ClusterPointer | None, after: ClusterPointer) -> ClusterPointer:
        """Replace the pointer, if it moved; give its time to what it no longer keeps."""
        if before is None or after.version != before.version:
            self._find(after.version)
        for version in after.kept:
            self._maps.keep(version)
        if after != before:
            write_json(self.folder / "current", after.model_dump())
        for version in {*self._maps.names()} - after.kept:
            self._maps.expire(version, self._keep_s)
        self._thin_out(after, self._keep_count)
        return after

    def _thin_out(self, pointer: ClusterPointer | None, keep_count: int) -> list[str]:
        """Remove what is past its time, and the oldest of too many; return the latter."""
        there = self._maps.versions()
        kept = set(there[-keep_count:] if keep_count else [])
        kept |= pointer.kept if pointer else set()
        for version in {*self._maps.names()} - kept:
            self._maps.remove(version)
        return [version for version in there if version not in kept]

    @contextmanager
    def _writing(self) -> Iterator[ClusterPointer | None]:
        """Hold the folder's lock, making the folder; hands out the pointer as it is."""
        with self._naming_faults(writing_fault):
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / LOCK).open("w") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                self._maps.sweep()
                yield self._pointer_or_none()

    @contextmanager
    def _tending(self) -> Iterator[ClusterPointer | None]:
        """Hold the lock of a folder that is there: one that is misspelt is not made."""
        with self._naming_faults(reading_fault):
            is_there = self.folder.is_dir()
        if not is_there:
            yield None
            return
        with self._writing() as before:
            yield before

    @contextmanager
    def _naming_faults(self, fault: Fault) -> Iterator[None]:
        """Turn what the file system says into an error of ours."""
        try:
            yield
        except OSError as error:
            raise fault(self.place, error) from error
