"""Answers per second, waiting times and CPU of several servers, asked in turn on one core."""

import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.serving.load import Load, ask
from benchmarks.serving.processes import Server, serving

SERVER_CORE, CLIENT_CORE = 0, 1
FLOOR = "benchmarks.serving.floor"
CONNECTIONS = (1, 16, 64)


@dataclass(frozen=True)
class Turn:
    """One turn of asking one server.

    cpu_us  CPU time of the server per answer
    """

    load: Load
    cpu_us: float


@dataclass(frozen=True)
class Figures:
    """Medians over turns; `spread` is the least and the most answers per second."""

    rps: float
    spread: tuple[float, float]
    p50_ms: float
    p99_ms: float
    cpu_us: float


def take_turn(server: Server, bodies: Path, connections: int, seconds: float) -> Turn:
    """Ask one server for some seconds.

    Raises RuntimeError if an answer failed: such a turn is no measurement.
    """
    began = server.cpu_s()
    load = ask(server.url, "/retrieve", bodies, connections, seconds, CLIENT_CORE)
    if load.failed:
        raise RuntimeError(f"{server.url}: {load.failed} of {load.requests} answers failed")
    return Turn(load, (server.cpu_s() - began) / load.requests * 1e6)


def figures_of(turns: list[Turn]) -> Figures:
    """Return the medians."""
    rates = [one.load.rps for one in turns]
    return Figures(
        statistics.median(rates),
        (min(rates), max(rates)),
        statistics.median(one.load.p50_ms for one in turns),
        statistics.median(one.load.p99_ms for one in turns),
        statistics.median(one.cpu_us for one in turns),
    )


def compare(
    servers: Mapping[str, Server], bodies: Path, connections: int, turns: int, seconds: float
) -> dict[str, Figures]:
    """Ask the servers in turn, several times over, so that a busy minute meets them all."""
    taken: dict[str, list[Turn]] = {name: [] for name in servers}
    for server in servers.values():
        ask(server.url, "/retrieve", bodies, connections, 1, CLIENT_CORE)  # warm
    for _ in range(turns):
        for name, server in servers.items():
            taken[name].append(take_turn(server, bodies, connections, seconds))
    return {name: figures_of(own) for name, own in taken.items()}


@contextmanager
def ours_and_floor(bundles: Path, bodies: Path) -> Iterator[dict[str, Server]]:
    """Start the service, then its floor, which hands out one of the service's answers."""
    with ExitStack() as stack:
        ours = stack.enter_context(serving("service", bundles, SERVER_CORE))
        answer = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".json"))
        answer.write(typical_answer(ours, bodies))
        answer.flush()
        floor = stack.enter_context(serving(FLOOR, bundles, SERVER_CORE, FLOOR_ANSWER=answer.name))
        yield {"floor": floor, "ours": ours}


def typical_answer(server: Server, bodies: Path) -> bytes:
    """Ask the first question once."""
    question = json.loads(bodies.read_text().splitlines()[0])
    return httpx.post(f"{server.url}/retrieve", json=question).raise_for_status().content


def told(found: Figures) -> list[str]:
    """Return answers per second with their range, waiting times, CPU."""
    low, high = found.spread
    rps = f"{found.rps:,.0f} ({low:,.0f} to {high:,.0f})"
    return [rps, f"{found.p50_ms:.2f}", f"{found.p99_ms:.2f}", f"{found.cpu_us:.0f}"]
