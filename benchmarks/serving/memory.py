"""Memory of service processes, and the time to open a bundle."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.processes import Server


@dataclass(frozen=True)
class Memory:
    """Memory of one process, in bytes.

    Attributes:
        own: Private memory.
        shared: Proportional share (PSS) of memory that several processes map.
        copied: Private pages of the bundle's files, duplicated by every process.
    """

    own: int
    shared: int
    copied: int


def memory_of(server: Server, bundles: Path) -> Memory:
    """Sum up the memory mappings of the process (Linux)."""
    own = shared = copied = 0
    for name, sizes in mappings(server.process.pid):
        private = sizes["Private_Clean"] + sizes["Private_Dirty"]
        written = sizes["Private_Dirty"]
        own += private
        shared += sizes["Pss"] - private
        copied += written if name.startswith(str(bundles.resolve())) else 0
    return Memory(own, shared, copied)


def mappings(process_id: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield name and sizes in bytes of each mapping of a process."""
    name: str = ""
    sizes: dict[str, int] = {}
    for line in Path(f"/proc/{process_id}/smaps").read_text().splitlines():
        head, *rest = line.split(maxsplit=5)
        if head.endswith(":"):
            if rest[-1] == "kB":
                sizes[head[:-1]] = int(rest[0]) * 1024
            continue
        if sizes:
            yield name, sizes
        name, sizes = (rest[4] if len(rest) == 5 else ""), {}
    if sizes:
        yield name, sizes


def drop_page_cache(folder: Path) -> None:
    """Drop a bundle's files from the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def loading_s(server: Server) -> float:
    """Return how long the server's bundle took to open, from its log."""
    while not (lines := server.logged("bundle is live")):  # logged just after it is ready
        time.sleep(0.01)
    return float(str(lines[0]["load_s"]))
