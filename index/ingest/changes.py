"""Detects data files that change while a folder is read."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG

from index.ingest.tables import Findings, list_names

DATA_SUFFIXES = (".parquet", ".csv", ".npy")

ListFiles = Callable[[Path], Iterable[Path]]


@contextmanager
def detect_changes(
    folder: Path, findings: Findings, list_others: ListFiles = lambda _: ()
) -> Iterator[None]:
    """Report data files of a folder that change within the context: they may not match.

    Args:
        folder: Its files with one of DATA_SUFFIXES are compared.
        findings: Gets the fault.
        list_others: Lists further files for the folder.
    """
    before = _file_states(folder, list_others)
    yield
    after = _file_states(folder, list_others)
    changed = {path.relative_to(folder).as_posix() for path, _ in before.items() ^ after.items()}
    if changed:
        findings.faults.append(
            f"{list_names(sorted(changed))}: changed while the folder was read; expected files "
            "that do not change; repeat the command when they are complete"
        )


def _file_states(folder: Path, list_others: ListFiles) -> dict[Path, tuple[int, int, int]]:
    """Return inode, size and modification time of the data files of a folder."""
    paths = [path for path in folder.iterdir() if path.suffix in DATA_SUFFIXES]
    states = {}
    for path in {*paths, *list_others(folder)}:
        with suppress(FileNotFoundError):  # removed, or a link to nothing
            state = path.stat()
            if S_ISREG(state.st_mode):
                states[path] = (state.st_ino, state.st_size, state.st_mtime_ns)
    return states
