"""The folder of bundles: stage, publish, make current, roll back, prune.

`current` is one small file, replaced by one atomic rename. A bundle's folder is made once, by
a rename of a staging folder, and never written into again. Readers need no lock, writers one.
"""

import fcntl
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import Field, ValidationError

from index.bundle.manifest import MANIFEST
from index.errors import (
    BundleError,
    FaultyBundleError,
    NoBundleError,
    UnknownVersionError,
)
from index.fsio import Closed, sync_folder, sync_tree, write_json
from index.version import VERSION_PATTERN, version_of

STAGING_PREFIX = ".staging-"
STALE_S = 24 * 3600


class Pointer(Closed):
    """What `current` says. The sequence grows with every change; versions may go back."""

    sequence: int = Field(ge=1)
    version: str = Field(pattern=VERSION_PATTERN)
    previous: str | None = Field(pattern=VERSION_PATTERN)


class Shelf:
    """A folder of bundles, one of them current."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder, and see now, not after hours of training, that it can be written.

        Raises OSError if it cannot.
        """
        with self._writing():
            pass

    def pointer(self) -> Pointer | None:
        """Read which bundle is current; None where nothing was ever published.

        Raises FaultyBundleError if the file is not a pointer.
        """
        path = self.folder / "current"
        try:
            return Pointer.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise FaultyBundleError(
                str(path),
                [
                    f"cannot be read as a pointer ({type(error).__name__}); expected json with "
                    "sequence, version and previous; repair it with `python -m index rollback "
                    f"{self.folder} VERSION`"
                ],
            ) from error

    def current(self) -> Path:
        """Return the folder of the current bundle; raises NoBundleError where there is none."""
        pointer = self.pointer()
        if pointer is None:
            raise NoBundleError(
                f"{self.folder}: no bundle is published here yet; publish one with "
                f"`python -m trainer run --data DIR --bundles {self.folder}`"
            )
        return self.path_of(pointer.version)

    def path_of(self, version: str) -> Path:
        """Return a published version's folder; raises UnknownVersionError if there is none."""
        if version not in self.versions():
            raise UnknownVersionError(
                f"{self.folder}: holds no bundle {version!r}; "
                f"it holds {self.versions() or 'none'}"
            )
        return self.folder / version

    def versions(self) -> list[str]:
        """Return the published versions, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(
            path.name
            for path in self.folder.iterdir()
            if re.match(VERSION_PATTERN, path.name) and (path / MANIFEST).is_file()
        )

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """Make a folder to write a bundle into; it is gone at the end unless published."""
        staged = self.folder / f"{STAGING_PREFIX}{secrets.token_hex(4)}"
        staged.mkdir(parents=True)
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def publish(self, staged: Path, now: datetime) -> str:
        """Move a staged bundle to its place; return its version. Not current yet.

        Raises BundleError if that version exists already.
        """
        sync_tree(staged)
        version = version_of(staged, now)
        with self._writing():
            if (self.folder / version).exists():
                raise BundleError(f"{self.folder / version}: exists already; publish again")
            staged.rename(self.folder / version)
            sync_folder(self.folder)
        return version

    def make_current(self, version: str) -> Pointer:
        """Point `current` at a published version, and remember the one before."""
        self.path_of(version)
        with self._writing():
            return self._point_at(version)

    def advance(self, version: str, before: Pointer | None) -> Pointer:
        """Point `current` at a published version, unless somebody moved it meanwhile.

        Raises BundleError if it does not say what it said before.
        """
        self.path_of(version)
        with self._writing():
            now = self.pointer()
            if now != before:
                raise BundleError(
                    f"{self.folder / version}: published but not made current: meanwhile "
                    f"{now.version if now else 'nothing'} was; do the same for that one, or "
                    f"make it current all the same with `python -m index rollback "
                    f"{self.folder} {version}`"
                )
            return self._point_at(version)

    def roll_back(self, version: str | None = None) -> Pointer:
        """Point `current` at the version before it, or at the one named.

        Raises UnknownVersionError if there is none before it.
        """
        if version is not None:
            return self.make_current(version)
        with self._writing():
            before = self.before()
            self.path_of(before)
            return self._point_at(before)

    def before(self) -> str:
        """Return the version before the current one.

        Raises UnknownVersionError if there is none.
        """
        pointer = self.pointer()
        if pointer is None or pointer.previous is None:
            raise UnknownVersionError(
                f"{self.folder}: there is no version before the current one; "
                f"name one of {self.versions() or 'none'}"
            )
        return pointer.previous

    def prune(self, keep_count: int) -> list[str]:
        """Remove all but the newest `keep_count` bundles; return what was removed.

        The current bundle and the one before it always stay. What a killed run left a day ago,
        staged or half removed, is removed too.
        """
        with self._writing():
            pointer = self.pointer()
            kept = set(self.versions()[-keep_count:] if keep_count else [])
            kept |= {pointer.version, pointer.previous or ""} if pointer else set()
            known = [*self.versions(), *self._stale_leftovers()]
            doomed = [name for name in known if name not in kept]
            for name in doomed:
                (self.folder / name / MANIFEST).unlink(missing_ok=True)  # first: half is none
                shutil.rmtree(self.folder / name)
        return doomed

    def _point_at(self, version: str) -> Pointer:
        before = self._pointer_or_none()
        same = before is not None and before.version == version
        previous = (before.previous if same else before.version) if before else None
        sequence = before.sequence + 1 if before else time.time_ns() // 1_000_000_000
        pointer = Pointer(sequence=sequence, version=version, previous=previous)
        write_json(self.folder / "current", pointer.model_dump())
        return pointer

    def _pointer_or_none(self) -> Pointer | None:
        try:
            return self.pointer()
        except FaultyBundleError:
            return None  # being replaced is how a broken pointer is repaired

    def _stale_leftovers(self) -> list[str]:
        """Return folders that are no bundles yet, or no longer, and untouched for a day."""
        limit, whole = time.time() - STALE_S, self.versions()
        return sorted(
            path.name
            for path in self.folder.iterdir()
            if path.name.startswith(STAGING_PREFIX) or re.match(VERSION_PATTERN, path.name)
            if path.name not in whole and path.stat().st_mtime < limit
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the folder's lock, so that two publishers do not undo each other's pointer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield
