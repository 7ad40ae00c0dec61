"""The bundle registry: a folder of bundles; stage, publish, make current, roll back, prune.

`current` is one small file, replaced by one atomic rename. A bundle's folder is made once, by
a rename of a staging folder, and never written into again. Readers need no lock, writers one.
"""

import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import Field, ValidationError

from index.bundle.manifest import MANIFEST, VERSION_PATTERN, version_of
from index.errors import BundleError, InvalidBundleError, NoBundleError, UnknownVersionError
from index.fsio import sync_folder, sync_tree
from index.storage.local import LocalPointer
from index.storage.protocols import VersionPointer, moved, newest

STAGING_PREFIX = ".staging-"
STALE_S = 24 * 3600


class BundlePointer(VersionPointer):
    """What `current` says."""

    version: str = Field(pattern=VERSION_PATTERN)
    previous: str | None = Field(pattern=VERSION_PATTERN)


class BundleRegistry:
    """All published bundles, one of them current."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._current = LocalPointer(folder / "current", ".lock")

    def prepare(self) -> None:
        """Make the folder, and see now, not after hours of training, that it can be written.

        Raises OSError if it cannot.
        """
        with self._writing():
            pass

    def pointer(self) -> BundlePointer | None:
        """Read which bundle is current; None where nothing was ever published.

        Raises InvalidBundleError if the file is not a pointer.
        """
        try:
            return BundlePointer.parse(self._current.read())
        except (OSError, ValidationError) as error:
            raise InvalidBundleError(
                str(self.folder / "current"),
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
                f"{self.folder}: holds no bundle {version!r}; it holds {self.versions() or 'none'}"
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

    def make_current(self, version: str) -> BundlePointer:
        """Point `current` at a published version, and remember the one before."""
        self.path_of(version)  # before the folder is made: its name may be misspelt
        return self._move(lambda: version)

    def advance(self, version: str, before: BundlePointer | None) -> BundlePointer:
        """Point `current` at a published version, unless somebody moved it meanwhile.

        Raises BundleError if it does not say what it said before.
        """

        def choose() -> str:
            now = self.pointer()
            if now != before:
                raise BundleError(
                    f"{self.folder / version}: published but not made current: meanwhile "
                    f"{now.version if now else 'nothing'} was; do the same for that one, or "
                    f"make it current all the same with `python -m index rollback "
                    f"{self.folder} {version}`"
                )
            return version

        self.path_of(version)
        return self._move(choose)

    def roll_back(self, version: str | None = None) -> BundlePointer:
        """Point `current` at the version before it, or at the one named.

        Raises UnknownVersionError if there is none before it.
        """
        return self.make_current(version) if version else self._move(self.before)

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
            kept = newest(self.versions(), keep_count) | (pointer.kept if pointer else set())
            known = [*self.versions(), *self._stale_leftovers()]
            doomed = [name for name in known if name not in kept]
            for name in doomed:
                (self.folder / name / MANIFEST).unlink(missing_ok=True)  # first: half is none
                shutil.rmtree(self.folder / name)
        return doomed

    def _move(self, choose: Callable[[], str]) -> BundlePointer:
        """Point at what is chosen, under the lock; a broken pointer is repaired by that."""

        def plan(value: bytes | None) -> tuple[bytes, BundlePointer]:
            version = choose()
            self.path_of(version)
            after = self._next(value, version)
            return after.model_dump_json().encode() + b"\n", after

        self.folder.mkdir(parents=True, exist_ok=True)
        return self._current.update(plan)

    def _next(self, value: bytes | None, version: str) -> BundlePointer:
        try:
            before = BundlePointer.parse(value)
        except ValidationError:
            before = None
        return BundlePointer(**moved(before, version, 1 if before else int(time.time())))

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
        with self._current.locked():
            yield
