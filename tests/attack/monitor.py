"""Probe of a service under attack, in a process of its own: `python -m tests.attack.monitor`.

    python -m tests.attack.monitor URL PID < anything

It prints `ready`. Until its input ends it asks /livez and sends a query with a known answer, over
and over; then it prints a JSON object: the longest wait for /livez, the largest growth of RSS, and
counts of answers.
"""

import json
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx

QUERY = {"history": ["item-0", "item-2"], "k": 20}
PAUSE_S = 0.02


def rss_mb(pid):
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1_024
    raise AssertionError("the process has ended")


def candidates(response):
    return [each["item_id"] for each in response.json()["candidates"]]


def watch(url, pid, is_over):
    """Return the figures of the time until `is_over` is set."""
    figures = {"livez_s": 0.0, "rss_mb": 0.0, "wrong": 0, "answers": 0, "rejected": 0, "lost": 0}
    base = rss_mb(pid)
    with httpx.Client(base_url=url, timeout=120) as client:
        expected = candidates(client.post("/retrieve", json=QUERY))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while not is_over.is_set():
            begin_s = time.perf_counter()
            with suppress(httpx.TransportError):
                assert client.get("/livez").status_code == 200
            figures["livez_s"] = max(figures["livez_s"], time.perf_counter() - begin_s)
            figures["rss_mb"] = max(figures["rss_mb"], rss_mb(pid) - base)
            try:
                response = client.post("/retrieve", json=QUERY)
            except httpx.TransportError:
                figures["lost"] += 1
                continue
            if response.status_code == 200:
                figures["answers"] += 1
                figures["wrong"] += candidates(response) != expected
            else:
                figures["rejected"] += 1
                figures["wrong"] += response.status_code != 503
            time.sleep(PAUSE_S)
    return figures


def main():
    """Watch until the input ends; print the figures."""
    url, pid = sys.argv[1], int(sys.argv[2])
    is_over = threading.Event()

    def wait():
        sys.stdin.read()
        is_over.set()

    threading.Thread(target=wait, daemon=True).start()
    sys.stdout.write(json.dumps(watch(url, pid, is_over)))


if __name__ == "__main__":
    main()
