"""The deny list in a file, replaced by one atomic rename. Readers need no lock, writers one."""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from index.deny.deny_list import HEAD_BYTES, DenyHead, DenyList, is_lost, parse_head, parse_list
from index.errors import (
    ClusterStoreError,
    FaultyDenyListError,
    ReadOnlyStoreError,
    StoreFullError,
    StoreUnreachableError,
)
from index.fsio import sync_folder
from index.stores.folder_faults import FULL, READ_ONLY

Read = Callable[[], DenyList | None]
Plan = Callable[[Read], DenyList]


class FolderDeny:
    """A DenyStore in a file; its folder must be there."""

    forgets = False

    def __init__(self, file: Path) -> None:
        self._file = file
        self.place = str(file)

    def head(self) -> DenyHead | None:
        """Read what the list says of itself, None where there is none."""
        found = self._bytes(HEAD_BYTES)
        return None if found is None else parse_head(found, self.place)

    def read(self) -> DenyList | None:
        """Read the list, None where there is none."""
        found = self._bytes()
        return None if found is None else parse_list(found, self.place)

    def change(self, plan: Plan) -> DenyList:
        """Replace the list by what a plan makes of it."""
        with self._writing():
            after = plan(self.read)
            self._write(after)
        return after

    def seed(self, held: DenyList) -> bool:
        """Put a list back where there is none, an older or a damaged one."""
        with self._writing():
            before = self._or_none()
            if not is_lost(before.head if before else None, held):
                return False
            self._write(held)
        return True

    def _bytes(self, count: int = -1) -> bytes | None:
        try:
            with self._file.open("rb") as stream:
                return stream.read(count)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _fault(self._file, error) from error

    def _or_none(self) -> DenyList | None:
        with suppress(FaultyDenyListError):  # being replaced repairs it
            return self.read()
        return None

    def _write(self, after: DenyList) -> None:
        beside = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        with beside.open("wb") as stream:
            stream.write(after.written())
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(self._file)
        sync_folder(self._file.parent)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the file's lock, and sweep away what a killed writer left."""
        try:
            with self._file.with_name(f".{self._file.name}.lock").open("w") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                self._sweep()
                yield
        except OSError as error:
            raise _fault(self._file, error) from error

    def _sweep(self) -> None:
        left = re.compile(rf"\.{re.escape(self._file.name)}\.[0-9]+")
        for path in self._file.parent.iterdir():
            if left.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _fault(file: Path, error: OSError) -> ClusterStoreError:
    told = f"{file}: {error.strerror or error} ({error.filename or 'no file'})"
    if error.errno in FULL:
        return StoreFullError(f"{told}; expected room for a deny list; make some, try again")
    if error.errno in READ_ONLY:
        return ReadOnlyStoreError(
            f"{told}; expected the right to write there; where the folder may be written, run "
            f"`python -m index deny set | add | remove --bundles {file.parent}`"
        )
    if not file.parent.is_dir():
        return StoreUnreachableError(
            f"{told}; expected {file.parent} to be a folder; correct its name, or make it"
        )
    return StoreUnreachableError(f"{told}; expected a file to read; make it one")
