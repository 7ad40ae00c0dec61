"""Load generation with wrk, or with a minimal client where wrk is not installed."""

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
local bodies, headers, index = {}, {["content-type"] = "application/json"}, 0
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
local path = os.getenv("REQUEST_PATH")
request = function()
  index = index % #bodies + 1
  return wrk.format("POST", path, headers, bodies[index])
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
    """Result of one round; `failed` counts responses other than 2xx and lost connections."""

    requests: int
    duration_s: float
    p50_ms: float
    p99_ms: float
    failed: int

    @property
    def rps(self) -> float:
        """Requests per second."""
        return self.requests / self.duration_s


def send_load(
    url: str, path: str, bodies: Path, connections: int, seconds: float, core: int | None
) -> Load:
    """Send requests in a closed loop over concurrent connections, from a client core.

    Args:
        url: Base URL of the server.
        path: Path of the requests.
        bodies: File with one JSON body per line, sent in a cycle.
        connections: Number of concurrent connections.
        seconds: Duration.
        core: Core of the client; None for any.
    """
    if WRK:
        return _run_wrk(url, path, bodies, connections, seconds, core)
    client = [sys.executable, "-m", "benchmarks.serving.client", url + path, str(bodies)]
    done = subprocess.run(
        [*client, str(connections), str(seconds)],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=pinned(core),
    )
    return Load(**json.loads(done.stdout))


def _run_wrk(
    url: str, path: str, bodies: Path, connections: int, seconds: float, core: int | None
) -> Load:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT)
        script.flush()
        done = subprocess.run(
            [
                *(str(WRK), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"),
                *("--timeout", "30s", "--latency", "-s", script.name, url),
            ],
            check=True,
            capture_output=True,
            text=True,
            env={"BODIES": str(bodies), "REQUEST_PATH": path},
            preexec_fn=pinned(core),
        )
    return Load(**json.loads(done.stdout.strip().splitlines()[-1]))
