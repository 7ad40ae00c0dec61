"""Record the golden files; only after an intended change of behaviour.

    python -m tests.golden.record requests    # the responses of the service: requests.jsonl.gz
    python -m tests.golden.record runs        # the digests of seeded runs: runs.json, from scratch
    python -m tests.golden.record platform    # the same, for this machine beside others

Review the changes before you commit them, and explain them in the commit message.
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path

from tests.golden.comparison import normalised
from tests.golden.generator import generate
from tests.golden.service import serving

REQUESTS = Path(__file__).with_name("requests.jsonl.gz")
RUNS = Path(__file__).with_name("runs.json")


def record_requests():
    """Send every generated request and store it with its response."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for world, requests in generate().items():
            with serving(world, Path(folder)) as send:
                for request in requests:
                    response = normalised(send(request))
                    lines.append({"world": world, "request": request, "response": response})
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    REQUESTS.write_bytes(gzip.compress(text.encode("utf-8", "surrogatepass"), 9, mtime=0))
    print(f"{REQUESTS}: {len(lines)} requests, {REQUESTS.stat().st_size:,} bytes")  # noqa: T201  # a command


def read_requests():
    """Return the recorded requests with their responses, in the order they were sent."""
    lines = gzip.decompress(REQUESTS.read_bytes()).decode("utf-8", "surrogatepass")
    return [json.loads(line) for line in lines.split("\n") if line]


def record_platform():
    """Add the runs of this machine, or replace them."""
    from tests.golden.runs import platform_of

    records = json.loads(RUNS.read_text(encoding="utf-8"))
    record_runs([record for record in records if record["platform"] != platform_of()])


def record_runs(others=()):
    """Train twice with each sampler; store the digests if both runs agree."""
    from tests.golden.runs import SAMPLERS, platform_of, results_of, train

    runs = {}
    for sampler in SAMPLERS:
        with tempfile.TemporaryDirectory() as left, tempfile.TemporaryDirectory() as right:
            first, second = (results_of(train(sampler, Path(name))) for name in (left, right))
        if first != second:
            raise SystemExit(f"{sampler}: two runs differ: {first} and {second}")
        runs[sampler] = first
    content = [*others, {"platform": platform_of(), "runs": runs}]
    RUNS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{RUNS}: {len(runs)} runs")  # noqa: T201  # a command


COMMANDS = {"requests": record_requests, "runs": record_runs, "platform": record_platform}

if __name__ == "__main__":
    for name in sys.argv[1:] or ["requests", "runs"]:
        COMMANDS[name]()
