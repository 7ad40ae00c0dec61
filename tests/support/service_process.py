"""Runs the real service as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.http_caller import until

ROOT = Path(__file__).parents[2]


def environment(**more):
    """This process' environment without settings of the service, and with these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ESANS_")}
    return clean | more


def run(*arguments, **variables):
    """Run to the end; return the exit status and what was said of errors."""
    command = [sys.executable, "-m", "service", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(**variables), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr, done.stdout


def read_lines(pipe, lines):
    """Put what a service logs where a test can look, until it ends."""
    for line in pipe:
        lines.append(json.loads(line))


@contextmanager
def served(bundles, **variables):
    """The real process on a free port: its address and its lines, then SIGTERM."""
    command = [sys.executable, "-m", "service", "--bundles", str(bundles), "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(**{"ESANS_POLL_INTERVAL_S": "0.05", **variables}),
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        lines = []
        reader = threading.Thread(target=read_lines, args=(process.stdout, lines), daemon=True)
        reader.start()  # a pipe that nobody empties holds up the service
        try:
            (url,) = until(lambda: [x["url"] for x in lines if x["event"] == "listening"], 60)
            with httpx.Client(base_url=url) as client:
                client.process = process
                yield client, lines
        finally:
            process.send_signal(signal.SIGTERM)
            reader.join(timeout=60)
            lines.append({"event": "exit", "status": process.wait(timeout=30)})
