"""Servers in processes of their own, pinned to a core: started, measured, ended by their id."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

START_S = 120.0
PATIENCE_S = 0.02


@dataclass(frozen=True)
class Server:
    """A server that answers.

    log  the file that its stdout goes to: one JSON object a line
    """

    url: str
    process: psutil.Process
    log: Path

    def cpu_s(self) -> float:
        """Return the CPU seconds that it has used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def logged(self, event: str) -> list[dict[str, object]]:
        """Return the lines of one event."""
        return [line for line in lines_of(self.log) if line.get("event") == event]


def pinned(core: int | None) -> Callable[[], None] | None:
    """Return what a child does first to stay on one core; None leaves it free."""
    if core is None:
        return None
    return lambda: os.sched_setaffinity(0, {core})


@contextmanager
def serving(
    module: str,
    bundles: Path,
    core: int | None,
    *options: str,
    checkout: Path | None = None,
    **settings: str,
) -> Iterator[Server]:
    """Run `python -m module --bundles DIR --port 0`, and end it; yields it once it is ready.

    checkout  the tree whose code runs; None: this one
    """
    command = [sys.executable, "-m", module]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as written:
            child = subprocess.Popen(
                [*command, "--bundles", str(bundles), "--port", "0", *options],
                stdout=written,
                cwd=checkout,  # Python looks there first for `-m module`
                env={**os.environ, **threads, **settings},
                preexec_fn=pinned(core),
            )
        try:
            yield Server(ready_url(child, log), psutil.Process(child.pid), log)
        finally:
            child.terminate()
            child.wait(timeout=START_S)


def ready_url(child: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until a server is ready; return its address.

    Raises RuntimeError if it ends before, TimeoutError if it takes too long.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise RuntimeError(f"the server ended with status {child.returncode}: {log}")
        urls = [str(line["url"]) for line in lines_of(log) if "url" in line]
        if urls and is_ready(urls[0]):
            return urls[0]
        time.sleep(PATIENCE_S)
    raise TimeoutError(f"the server was not ready within {START_S:g} s: {log}")


def is_ready(url: str) -> bool:
    """Return whether it says so."""
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def lines_of(log: Path) -> list[dict[str, object]]:
    """Return what was logged so far; a line being written is left out."""
    whole = log.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
