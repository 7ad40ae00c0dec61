"""Bundle registry: a folder of published bundles and a pointer to the current one.

A bundle folder is created by an atomic rename of a staging folder and never modified. The pointer
`current` is a file that is replaced atomically. Readers take no lock; writers share one.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field

from index.bundle.manifest import MANIFEST, VERSION_PATTERN, read_manifest, version_of
from index.errors import (
    BundleError,
    InvalidBundleError,
    NoBundleError,
    UnavailableBundleError,
    UnknownVersionError,
    is_machine_fault,
)
from index.fsio import sync_folder, sync_tree
from index.storage.local import LocalPointer
from index.storage.protocols import VersionPointer, newest_versions, next_pointer

STAGING_PREFIX = ".staging-"
TRAINING_STATES = ".training"
STALE_S = 24 * 3600

Version = Annotated[str, Field(pattern=VERSION_PATTERN)]


class BundlePointer(VersionPointer):
    """Content of the file `current`."""

    version: str = Field(pattern=VERSION_PATTERN)
    previous: str | None = Field(pattern=VERSION_PATTERN)
    """version that a rollback leads to"""
    earlier: tuple[Version, ...] = ()
    """versions that further rollbacks lead to, oldest first"""


class BundleRegistry:
    """All published bundles and the current pointer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._current = LocalPointer(folder / "current", ".lock")

    def prepare(self) -> None:
        """Create the folder and check that it is writable, before hours of training.

        Raises:
            OSError: The folder cannot be written.
        """
        with self._writing():
            pass

    def pointer(self) -> BundlePointer | None:
        """Read the current pointer; None if nothing was ever published.

        Raises:
            InvalidBundleError: The file is not a pointer.
            UnavailableBundleError: This machine cannot read it now.
        """
        try:
            return BundlePointer.parse(self._current.read())
        except (OSError, ValueError) as error:
            if is_machine_fault(error):
                raise UnavailableBundleError(
                    f"{self.folder / 'current'}: cannot be read now ({error}); expected free file "
                    "descriptors, a readable disk and read access; correct that, then retry"
                ) from error
            raise InvalidBundleError(
                str(self.folder / "current"),
                [
                    f"cannot be read as a pointer ({type(error).__name__}); expected JSON with "
                    "sequence, version and previous; repair it with `python -m index rollback "
                    f"{self.folder} VERSION`"
                ],
            ) from error

    def current_version(self) -> str | None:
        """Return the current version; None if there is none or the pointer is damaged."""
        try:
            pointer = self.pointer()
        except InvalidBundleError:
            return None
        return pointer.version if pointer else None

    def current(self) -> Path:
        """Return the folder of the current bundle; raises NoBundleError if there is none."""
        pointer = self.pointer()
        if pointer is None:
            raise NoBundleError(
                f"{self.folder}: no bundle is published here yet; publish one with "
                f"`python -m trainer run --data DIR --bundles {self.folder}`"
            )
        return self.path_of(pointer.version)

    def path_of(self, version: str) -> Path:
        """Return the folder of a version; raises UnknownVersionError if it is not published."""
        if version not in self.versions():
            raise UnknownVersionError(
                f"{self.folder}: holds no bundle {version!r}; "
                f"expected one of {self.versions() or 'none'}"
            )
        return self.folder / version

    def report_path(self, version: str) -> Path:
        """Return where the report of a version is written: beside its immutable folder."""
        return self.folder / f"{version}.report.html"

    def state_path(self, digest: str) -> Path:
        """Return where the training state with a digest is: beside the bundles, not served."""
        return self.folder / TRAINING_STATES / f"{digest}.safetensors"

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
        """Create a staging folder; it is removed on exit unless published."""
        staged = self.folder / f"{STAGING_PREFIX}{secrets.token_hex(4)}"
        staged.mkdir(parents=True)
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def publish(self, staged: Path, now: datetime) -> str:
        """Publish a staged bundle without making it current; return its version.

        An equal bundle of the same second gets the next free second.
        """
        sync_tree(staged)
        with self._writing():
            while os.path.lexists(self.folder / (version := version_of(staged, now))):
                now += timedelta(seconds=1)
            staged.rename(self.folder / version)
            sync_folder(self.folder)
        return version

    def make_current(self, version: str) -> BundlePointer:
        """Point `current` at a published version and keep the previous one for rollback."""
        self.path_of(version)  # before the folder is created: its name may be misspelt
        return self._move(lambda: version)

    def advance(self, version: str, before: BundlePointer | None) -> BundlePointer:
        """Point `current` at a published version if it still equals `before`.

        Raises:
            BundleError: The pointer has changed.
        """

        def choose() -> str:
            now = self.pointer()
            if now != before:
                raise BundleError(
                    f"{self.folder / version}: published but not made current: meanwhile "
                    f"{now.version if now else 'none'} became current; repeat the command, or "
                    f"force it with `python -m index rollback {self.folder} {version}`"
                )
            return version

        self.path_of(version)
        return self._move(choose)

    def roll_back(self, version: str | None = None) -> BundlePointer:
        """Point `current` at the version that was current before it, or at `version`.

        A second rollback goes further back. A bundle that never was current is skipped: it may
        have been held back.

        Raises:
            UnknownVersionError: There is no such version.
        """
        return self.make_current(version) if version else self._move(self.previous_version)

    def previous_version(self) -> str:
        """Return the version that was current before.

        Raises:
            UnknownVersionError: There is none.
        """
        pointer = self.pointer()
        earlier = self._earlier_versions(pointer, pointer.version) if pointer else []
        if not earlier:
            raise UnknownVersionError(
                f"{self.folder}: no version before the current one; "
                f"pass one of {self.versions() or 'none'}"
            )
        return earlier[-1]

    def prune(self, keep_count: int) -> list[str]:
        """Remove all but the newest `keep_count` bundles; return the removed ones.

        The current bundle and the one that a rollback leads to are kept. The report of a bundle
        goes with it, and a training state that no remaining bundle names. Staged and partly removed
        folders that a killed process left more than a day ago are removed too.
        """
        with self._writing():
            pointer = self.pointer()
            kept = newest_versions(self.versions(), keep_count)
            if pointer:
                kept |= {pointer.version, *self._earlier_versions(pointer, pointer.version)[-1:]}
            known = [*self.versions(), *self._stale_leftovers()]
            removed = [name for name in known if name not in kept]
            states = {name: self._state_of(name) for name in self.versions()}
            for name in removed:
                (self.folder / name / MANIFEST).unlink(
                    missing_ok=True
                )  # first: a folder without it is not a bundle
                shutil.rmtree(self.folder / name)
                self.report_path(name).unlink(missing_ok=True)
            self._remove_states(states, kept)
        return removed

    def _state_of(self, version: str) -> Path | None:
        """Return the path of the training state that a bundle names, if any."""
        try:
            state = read_manifest(self.folder / version).run.get("training", {}).get("state")
        except (InvalidBundleError, OSError):
            return None
        return self.state_path(state["sha256"]) if state else None

    def _remove_states(self, states: dict[str, Path | None], kept: set[str]) -> None:
        """Remove the training states of removed bundles, and leftovers of more than a day."""
        used = {state for version, state in states.items() if version in kept}
        limit = time.time() - STALE_S
        for path in (self.folder / TRAINING_STATES).glob("*"):
            if path not in used and (path in states.values() or path.stat().st_mtime < limit):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _move(self, choose: Callable[[], str]) -> BundlePointer:
        """Move the pointer to the chosen version under the lock; replaces a damaged pointer."""

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
        except ValueError:
            before = None
        fields = next_pointer(before, version, 1 if before else int(time.time()))
        earlier = self._earlier_versions(before, version) if before else []
        fields |= {"previous": earlier[-1] if earlier else None, "earlier": earlier[:-1]}
        return BundlePointer(**fields)

    def _earlier_versions(self, pointer: BundlePointer, version: str) -> list[str]:
        """Return the published versions that were current before a version, oldest first."""
        history = [*pointer.earlier, pointer.previous, pointer.version]
        if version in history:
            history = history[: history.index(version)]
        published = self.versions()
        return [each for each in history if each in published]

    def _stale_leftovers(self) -> list[str]:
        """Return incomplete bundle folders that have not been modified for a day."""
        limit, whole = time.time() - STALE_S, self.versions()
        return sorted(
            path.name
            for path in self.folder.iterdir()
            if path.name.startswith(STAGING_PREFIX) or re.match(VERSION_PATTERN, path.name)
            if path.name not in whole and path.stat().st_mtime < limit
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the writer lock of the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._current.hold_lock():
            yield
