"""Server processes pinned to a core, and their CPU time and logs."""

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

START_TIMEOUT_S = 120.0
POLL_INTERVAL_S = 0.02


@dataclass(frozen=True)
class Server:
    """A running server; `log` is the file of its stdout, one JSON object per line."""

    url: str
    process: psutil.Process
    log: Path

    def cpu_s(self) -> float:
        """Return the CPU seconds used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def logged(self, event: str) -> list[dict[str, object]]:
        """Return the log lines of one event."""
        return [line for line in lines_of(self.log) if line.get("event") == event]


def pinned(core: int | None) -> Callable[[], None] | None:
    """Return a preexec function that pins the child to a core; None for no pinning."""
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
    """Run `python -m module --bundles DIR --port 0`; yield the server once it is ready.

    Args:
        module: Module to run.
        bundles: Folder of bundles.
        core: Core to pin the server to; None for any.
        options: Further command-line options.
        checkout: Checkout whose code runs; None for this one.
        settings: Environment variables.
    """
    command = [sys.executable, "-m", module]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stream:
            child = subprocess.Popen(
                [*command, "--bundles", str(bundles), "--port", "0", *options],
                stdout=stream,
                cwd=checkout,  # `-m module` is resolved there first
                env={**os.environ, **threads, **settings},
                preexec_fn=pinned(core),
            )
        try:
            yield Server(ready_url(child, log), psutil.Process(child.pid), log)
        finally:
            child.terminate()
            child.wait(timeout=START_TIMEOUT_S)


def ready_url(child: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until a server is ready; return its URL.

    Raises:
        RuntimeError: The server exited.
        TimeoutError: It is not ready within START_TIMEOUT_S.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise RuntimeError(f"the server exited with status {child.returncode}; see {log}")
        urls = [str(line["url"]) for line in lines_of(log) if "url" in line]
        if urls and is_ready(urls[0]):
            return urls[0]
        time.sleep(POLL_INTERVAL_S)
    raise TimeoutError(f"the server was not ready within {START_TIMEOUT_S:g} s; see {log}")


def is_ready(url: str) -> bool:
    """Return whether /readyz returns 200."""
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def lines_of(log: Path) -> list[dict[str, object]]:
    """Return the complete log lines."""
    complete = log.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in complete.splitlines() if line.startswith(b"{")]
