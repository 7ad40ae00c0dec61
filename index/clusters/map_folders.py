"""Folders of one cluster map each, by version: put there whole, given a time to go, removed.

It knows nothing of what is current; `folder_clusters` does, and holds the lock that every
method below but the reading ones needs.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from index.cluster_map import ClusterMap
from index.clusters.files import CARD, ClusterMapCard, open_cluster_map, save_cluster_map
from index.clusters.store import VERSION_PATTERN
from index.errors import FaultyClusterMapError
from index.fsio import sync_folder, sync_tree

EXPIRES = "expires"
LOCK = ".lock"
LEFT_FOLDER = r"\.(staged|removed)-[0-9a-f]{16}"  # of a map put there or taken away
LEFT_FILE = r"\.current\.[0-9]+"  # beside the pointer, by process


class MapFolders:
    """The maps of a folder; one whose time is over is not there, even before it is removed.

    now  tells the time, in unix seconds
    """

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self.folder = folder
        self._now = now

    def names(self) -> list[str]:
        """Return all versions, those whose time is over too, in no order."""
        if not self.folder.is_dir():
            return []
        names = [path.name for path in self.folder.iterdir()]
        return [name for name in names if re.fullmatch(VERSION_PATTERN, name)]

    def versions(self) -> list[str]:
        """Return the versions that are there, oldest first."""
        there = [name for name in self.names() if self.has(name)]
        return sorted(there, key=lambda name: (self.stored_at(name), name))

    def has(self, version: str) -> bool:
        """Return whether a version is there."""
        if not re.fullmatch(VERSION_PATTERN, version):
            return False
        expires_at = self.expires_at(version)
        is_over = expires_at is not None and expires_at <= self._now()
        return (self.folder / version / CARD).is_file() and not is_over

    def open(self, version: str) -> ClusterMap:
        """Return a map, checked, and read into memory: what befalls its files is not felt.

        Raises FaultyClusterMapError.
        """
        path = self.folder / version
        opened = open_cluster_map(path)
        found = _in_memory(opened)
        if found.version != version:
            raise FaultyClusterMapError(
                str(path),
                [f"holds the map {found.version}, expected {version}; publish it anew"],
            )
        return found

    def card(self, version: str) -> ClusterMapCard | None:
        """Return what a map says of itself; None where that cannot be read."""
        try:
            return ClusterMapCard.model_validate_json(
                (self.folder / version / CARD).read_bytes()
            )
        except (FileNotFoundError, ValidationError):
            return None

    def stored_at(self, version: str) -> float:
        """Return when a version was stored last; 0 where it went meanwhile."""
        try:
            return (self.folder / version / CARD).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def expires_at(self, version: str) -> float | None:
        """Return when a version's time is over; None where it stays."""
        try:
            return float((self.folder / version / EXPIRES).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def put(self, found: ClusterMap) -> None:
        """Put a map in its place by one rename, to stay; one that is whole is left there."""
        target = self.folder / found.version
        if self._is_whole(found.version):
            self.keep(found.version)
            (target / CARD).touch()
            return
        staged = self.folder / f".staged-{found.version}"
        save_cluster_map(found, staged)
        sync_tree(staged)
        self.remove(found.version)
        staged.rename(target)
        sync_folder(self.folder)

    def keep(self, version: str) -> None:
        """Let a version stay, if it is there."""
        (self.folder / version / EXPIRES).unlink(missing_ok=True)

    def expire(self, version: str, after_s: float) -> None:
        """Give a version its time, unless it has one already."""
        if self.expires_at(version) is None:
            (self.folder / version / EXPIRES).write_text(repr(self._now() + after_s))

    def remove(self, version: str) -> None:
        """Take a version away by one rename, then its files."""
        doomed = self.folder / f".removed-{version}"
        try:
            (self.folder / version).rename(doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed)

    def sweep(self) -> None:
        """Remove what a writer that was killed left: under the lock there is no other.

        What is not of our making (`.git`, `.snapshot`) stays.
        """
        for path in self.folder.glob(".*"):
            if re.fullmatch(LEFT_FOLDER, path.name):
                shutil.rmtree(path)
            elif re.fullmatch(LEFT_FILE, path.name):
                path.unlink()

    def _is_whole(self, version: str) -> bool:
        try:
            return self.open(version).version == version
        except FaultyClusterMapError:
            return False


def _in_memory(opened: ClusterMap) -> ClusterMap:
    return replace(
        opened,
        codes1=np.array(opened.codes1),
        codes2=np.array(opened.codes2),
        centroids=np.array(opened.centroids),
        id_hashes=np.array(opened.id_hashes),
    )
