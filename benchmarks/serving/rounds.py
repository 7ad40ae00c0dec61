"""Throughput, latency and CPU of several servers, measured in alternating rounds on one core."""

import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.serving.load import Load, send_load
from benchmarks.serving.processes import Server, serving

SERVER_CORE, CLIENT_CORE = 0, 1
FLOOR = "benchmarks.serving.floor"
CONNECTIONS = (1, 16, 64)


@dataclass(frozen=True)
class Round:
    """One round of load on one server; `cpu_us` is the server's CPU time per response."""

    load: Load
    cpu_us: float


@dataclass(frozen=True)
class Metrics:
    """Medians over rounds; `spread` is the minimum and maximum of RPS."""

    rps: float
    spread: tuple[float, float]
    p50_ms: float
    p99_ms: float
    cpu_us: float


def run_round(server: Server, bodies: Path, connections: int, seconds: float) -> Round:
    """Send load to one server.

    Raises:
        RuntimeError: A request failed, so the round is invalid.
    """
    cpu_start_s = server.cpu_s()
    load = send_load(server.url, "/retrieve", bodies, connections, seconds, CLIENT_CORE)
    if load.failed:
        raise RuntimeError(f"{server.url}: {load.failed} of {load.requests} requests failed")
    return Round(load, (server.cpu_s() - cpu_start_s) / load.requests * 1e6)


def summarize(rounds: list[Round]) -> Metrics:
    """Return the medians."""
    rates = [measured.load.rps for measured in rounds]
    return Metrics(
        statistics.median(rates),
        (min(rates), max(rates)),
        statistics.median(measured.load.p50_ms for measured in rounds),
        statistics.median(measured.load.p99_ms for measured in rounds),
        statistics.median(measured.cpu_us for measured in rounds),
    )


def compare(
    servers: Mapping[str, Server], bodies: Path, connections: int, rounds: int, seconds: float
) -> dict[str, Metrics]:
    """Measure the servers in alternating rounds, so that background load affects all alike."""
    measured: dict[str, list[Round]] = {name: [] for name in servers}
    for server in servers.values():
        send_load(server.url, "/retrieve", bodies, connections, 1, CLIENT_CORE)  # warm up
    for _ in range(rounds):
        for name, server in servers.items():
            measured[name].append(run_round(server, bodies, connections, seconds))
    return {name: summarize(rounds_of) for name, rounds_of in measured.items()}


@contextmanager
def ours_and_floor(bundles: Path, bodies: Path) -> Iterator[dict[str, Server]]:
    """Start the service, then its floor, which returns a fixed response of the service."""
    with ExitStack() as stack:
        ours = stack.enter_context(serving("service", bundles, SERVER_CORE))
        response = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".json"))
        response.write(fetch_response(ours, bodies))
        response.flush()
        floor = stack.enter_context(
            serving(FLOOR, bundles, SERVER_CORE, FLOOR_RESPONSE=response.name)
        )
        yield {"floor": floor, "ours": ours}


def fetch_response(server: Server, bodies: Path) -> bytes:
    """Send the first query; return the response body."""
    query = json.loads(bodies.read_text().splitlines()[0])
    return httpx.post(f"{server.url}/retrieve", json=query).raise_for_status().content


def format_metrics(metrics: Metrics) -> list[str]:
    """Format RPS with its range, latencies and CPU time."""
    low, high = metrics.spread
    rps = f"{metrics.rps:,.0f} ({low:,.0f} to {high:,.0f})"
    return [rps, f"{metrics.p50_ms:.2f}", f"{metrics.p99_ms:.2f}", f"{metrics.cpu_us:.0f}"]
