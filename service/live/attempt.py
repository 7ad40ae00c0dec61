"""What was tried to open, to be tried again once it has changed; and why it was refused."""

from pathlib import Path
from typing import NamedTuple

from index.errors import FaultsError
from index.shelf import Pointer


class Attempt(NamedTuple):
    """Equal to the one before where nothing has changed.

    sizes  names and sizes of the version's files, as far as they can be seen
    """

    pointer: Pointer
    sizes: tuple[tuple[str, int], ...]


def attempt_at(bundles: Path, pointer: Pointer) -> Attempt:
    """Look at what is to be opened."""
    try:
        files = (bundles / pointer.version).iterdir()
        return Attempt(pointer, tuple(sorted((one.name, one.stat().st_size) for one in files)))
    except OSError:  # it is not there, or cannot be read
        return Attempt(pointer, ())


def reasons_of(error: Exception) -> tuple[str, ...]:
    """Tell why a bundle was refused, a line for each fault."""
    if isinstance(error, FaultsError):
        return tuple(f"{error.place}: {fault}" for fault in error.faults)
    return (f"{type(error).__name__}: {error}",)
