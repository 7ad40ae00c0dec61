"""Questions by the thousand: wrk where it is installed, else a small client of our own."""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.processes import pinned

WRK = shutil.which("wrk")

SCRIPT = """
local bodies, heads, place = {}, {["content-type"] = "application/json"}, 0
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
local path = os.getenv("ASKED_PATH")
request = function()
  place = place % #bodies + 1
  return wrk.format("POST", path, heads, bodies[place])
end
done = function(summary, latency)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format(
    '\\n{"requests": %d, "duration_s": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, failed))
end
"""


@dataclass(frozen=True)
class Load:
    """What one turn of asking gave.

    failed  answers that are no 2xx, and connections lost; such a turn is no measurement
    """

    requests: int
    duration_s: float
    p50_ms: float
    p99_ms: float
    failed: int

    @property
    def rps(self) -> float:
        """Return answers per second."""
        return self.requests / self.duration_s


def ask(
    url: str, path: str, bodies: Path, connections: int, seconds: float, core: int | None
) -> Load:
    """Ask as fast as answers come, over so many connections, from a core of its own.

    bodies  a file with one JSON body per line, asked in turn
    """
    if WRK:
        return _ask_with_wrk(url, path, bodies, connections, seconds, core)
    client = [sys.executable, "-m", "benchmarks.serving.client", url + path, str(bodies)]
    told = subprocess.run(
        [*client, str(connections), str(seconds)],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=pinned(core),
    )
    return Load(**json.loads(told.stdout))


def _ask_with_wrk(
    url: str, path: str, bodies: Path, connections: int, seconds: float, core: int | None
) -> Load:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT)
        script.flush()
        told = subprocess.run(
            [
                *(str(WRK), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"),
                *("--timeout", "30s", "--latency", "-s", script.name, url),
            ],
            check=True,
            capture_output=True,
            text=True,
            env={"BODIES": str(bodies), "ASKED_PATH": path},
            preexec_fn=pinned(core),
        )
    return Load(**json.loads(told.stdout.strip().splitlines()[-1]))
