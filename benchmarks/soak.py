"""Soak test: mixed traffic on a real service; checks failures and memory growth.

    python -m benchmarks.soak --minutes 10

Single queries with and without filters, batch requests, similar items, unknown users, invalid
bodies, clients that disconnect; bundles are swapped and the denylist changes every few seconds.
Prints memory, open files and threads of the process over time, and a verdict on the medians of
the first and last quarter, without the first minute.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.gaussian_shop import id_of, make_shop, stage
from index.bundle.registry import BundleRegistry

TOKEN = "soak"
SWAP_S, SAMPLE_S, PRINT_S, WARM_S = 3.0, 2.0, 30.0, 60.0
SEEDS = (0, 1)  # seeds of the two bundles
GROWTH, GROWTH_MB = 0.05, 8.0  # allowed growth, relative and in MB
SendRequest = Callable[["Traffic", httpx.AsyncClient, random.Random], Awaitable[str]]


@dataclass(frozen=True)
class Sample:
    """Resources of the process at one time; memory in MB."""

    at_s: float
    rss: float
    pss: float
    anonymous: float
    files: int
    threads: int


@dataclass
class Traffic:
    """Shared state and counters of the clients."""

    items: int
    url: str
    versions: list[str]
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def history(self, dice: random.Random) -> list[str]:
        """Sample a history."""
        return [id_of(dice.randrange(self.items)) for _ in range(dice.randint(1, 60))]


async def send_retrieve(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> str:
    """Send a query with random options."""
    body: dict[str, Any] = {"history": traffic.history(dice), "k": dice.choice([1, 20, 100])}
    if dice.random() < 0.3:
        body["filter"] = {dice.choice(["half", "twentieth"]): ["true"]}
    if dice.random() < 0.2:
        body["include"] = ["clusters"]
    response = await client.post("/retrieve", json=body)
    if response.status_code == 200:
        check(traffic, response.json(), body["k"], set(body["history"]))
    return expect(response, 200)


async def send_batch(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> str:
    """Send a batch request."""
    queries = [{"history": traffic.history(dice), "k": 20} for _ in range(dice.randint(1, 64))]
    response = await client.post("/retrieve/batch", json={"queries": queries})
    if response.status_code == 200:
        assert len(response.json()["results"]) == len(queries)
    return expect(response, 200)


async def send_similar(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> str:
    """Request similar items."""
    item = id_of(dice.randrange(traffic.items))
    return expect(await client.get(f"/items/{item}/similar", params={"k": 20}), 200)


async def send_unknown_user(
    traffic: Traffic, client: httpx.AsyncClient, dice: random.Random
) -> str:
    """Send a query of an unknown user."""
    body = {"user_id": f"unknown-{dice.random()}"}
    return expect(await client.post("/retrieve", json=body), 200)


async def send_invalid(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> str:
    """Send an invalid body."""
    bad = dice.choice([b"{", b'{"k": 0}', b'{"histroy": []}', b"[" * 1_000])
    return expect(await client.post("/retrieve", content=bad), 422)


async def send_and_disconnect(
    traffic: Traffic, client: httpx.AsyncClient, dice: random.Random
) -> str:
    """Disconnect in the middle of a body or before the response."""
    body = json.dumps({"history": traffic.history(dice)}).encode()
    head = f"POST /retrieve HTTP/1.1\r\nHost: soak\r\nContent-Length: {len(body)}\r\n\r\n"
    host, _, port = traffic.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + body[: dice.choice([len(body) // 2, len(body)])])
    await writer.drain()
    writer.close()
    return "left"


async def send_probe(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> str:
    """Send a request of probes and Prometheus."""
    path = dice.choice(["/livez", "/readyz", "/metrics", "/bundle"])
    return expect(await client.get(path), 200)


KINDS: list[tuple[SendRequest, int]] = [  # request, weight
    (send_retrieve, 60), (send_batch, 4), (send_similar, 10), (send_unknown_user, 5),
    (send_invalid, 5), (send_and_disconnect, 8), (send_probe, 3),
]  # fmt: skip


def expect(response: httpx.Response, status: int) -> str:
    """Return the name of the outcome; load shedding is not a failure."""
    if response.status_code == 503 and "retry-after" in response.headers:
        return f"refused: {response.json()['type'].rsplit(':', 1)[1]}"
    if response.status_code != status:
        raise AssertionError(f"{response.request.url.path}: {response.status_code} {response.text}")
    return f"{response.request.url.path.split('/item-')[0]} {status}"


def check(traffic: Traffic, result: dict[str, Any], k: int, seen: set[str]) -> None:
    """Check bundle version, number of candidates and exclusion of seen items."""
    ids = [candidate["item_id"] for candidate in result["candidates"]]
    assert result["bundle"] in traffic.versions, result["bundle"]
    assert len(ids) == len(set(ids)) == k, f"{len(ids)} of {k}"
    assert not seen & set(ids), "an item of the history came back"


async def keep_sending(traffic: Traffic, client: httpx.AsyncClient, seed: int) -> None:
    """Send requests until cancelled; record failures."""
    dice = random.Random(seed)
    senders, weights = zip(*KINDS, strict=True)
    while True:
        (send,) = dice.choices(senders, weights)
        try:
            traffic.outcomes[await send(traffic, client, dice)] += 1
        except (AssertionError, httpx.HTTPError, OSError, KeyError) as error:
            traffic.failures.append(f"{send.__name__}: {type(error).__name__} {error}"[:300])
            traffic.outcomes["failed"] += 1


async def keep_swapping(traffic: Traffic, registry: BundleRegistry) -> None:
    """Switch the current bundle until cancelled."""
    while True:
        for version in traffic.versions:
            registry.make_current(version)
            traffic.outcomes["swaps"] += 1
            await asyncio.sleep(SWAP_S)


async def keep_denying(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> None:
    """Replace the denylist and check that denied items are not returned."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    while True:
        denied = [id_of(dice.randrange(traffic.items)) for _ in range(20)]
        response = await client.put("/admin/denylist", json={"items": denied}, headers=headers)
        traffic.outcomes[expect(response, 200)] += 1
        retrieved = await client.post("/retrieve", json={"history": denied[:5], "k": 1_000})
        if retrieved.status_code == 200:
            ids = {candidate["item_id"] for candidate in retrieved.json()["candidates"]}
            if ids & set(denied):
                traffic.failures.append(f"denied items came back: {ids & set(denied)}")
        await asyncio.sleep(SWAP_S / 2)


async def keep_sampling(pid: int, samples: list[Sample]) -> None:
    """Sample the process until cancelled."""
    start, printed = time.monotonic(), 0.0
    while True:
        at_s = time.monotonic() - start
        samples.append(sample_of(pid, at_s))
        if at_s >= printed:
            printed += PRINT_S
            print_sample(samples[-1])
        await asyncio.sleep(SAMPLE_S)


def sample_of(pid: int, at_s: float) -> Sample:
    """Read memory, files and threads of the process."""
    proc = Path("/proc") / str(pid)
    lines = (proc / "smaps_rollup").read_text().splitlines()[1:]
    parts = {name: int(size.split()[0]) / 1024 for name, size in (x.split(":") for x in lines)}
    files = len(list((proc / "fd").iterdir()))
    threads = len(list((proc / "task").iterdir()))
    return Sample(at_s, parts["Rss"], parts["Pss"], parts["Anonymous"], files, threads)


def print_sample(sample: Sample) -> None:
    """Print a table line."""
    print(
        f"| {sample.at_s:5.0f} s | {sample.rss:6.1f} | {sample.pss:6.1f} | {sample.anonymous:6.1f} "
        f"| {sample.files:4d} | {sample.threads:3d} |",
        flush=True,
    )


def verdict(samples: list[Sample]) -> bool:
    """Compare the medians of the first and last quarter; return whether nothing grew."""
    warm = [sample for sample in samples if sample.at_s > WARM_S] or samples
    quarter = max(1, len(warm) // 4)
    is_level = True
    for name in ("rss", "pss", "anonymous", "files", "threads"):
        first, last = (
            statistics.median(getattr(sample, name) for sample in part)
            for part in (warm[:quarter], warm[-quarter:])
        )
        is_good = last <= first * (1 + GROWTH) + GROWTH_MB
        is_level = is_level and is_good
        print(f"{name}: {first:.1f} -> {last:.1f} {'level' if is_good else 'GROWN'}")
    return is_level


def publish_two(items: int, folder: Path) -> tuple[BundleRegistry, list[str]]:
    """Publish the two bundles that are swapped."""
    folder.mkdir(parents=True, exist_ok=True)
    registry, versions = BundleRegistry(folder), []
    for seed in SEEDS:
        with registry.stage() as staged:
            stage(staged, make_shop(items, seed), seed)
            versions.append(registry.publish(staged, datetime.now(UTC)))
    registry.make_current(versions[0])
    return registry, versions


@contextmanager
def service(folder: Path) -> Iterator[tuple[int, str]]:
    """Run the service; yield its process id and URL."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith("ESANS_")}
    environment |= {"ESANS_POLL_INTERVAL_S": "0.5", "ESANS_ADMIN_TOKEN": TOKEN}
    command = [sys.executable, "-m", "service", "--bundles", str(folder), "--port", "0"]
    with (
        (folder / "service.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log) as process,
    ):
        try:
            yield process.pid, wait_for_url(folder / "service.log")
        finally:
            process.send_signal(signal.SIGTERM)
            print(f"exit status after SIGTERM: {process.wait(timeout=60)}")


def wait_for_url(log: Path) -> str:
    """Wait until the service is ready; return its URL."""
    for _ in range(600):
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        if "bundle is live" in [line["event"] for line in lines]:
            return next(str(line["url"]) for line in lines if line["event"] == "listening")
        time.sleep(0.1)
    raise TimeoutError(f"{log}: the service is not ready; see its log")


async def soak(
    traffic: Traffic,
    samples: list[Sample],
    registry: BundleRegistry,
    pid: int,
    args: argparse.Namespace,
) -> None:
    """Run all tasks for the given minutes."""
    limits = httpx.Limits(max_keepalive_connections=args.clients)
    async with httpx.AsyncClient(base_url=traffic.url, timeout=30, limits=limits) as client:
        tasks = [keep_sending(traffic, client, seed) for seed in range(args.clients)]
        tasks += [keep_swapping(traffic, registry), keep_sampling(pid, samples)]
        tasks += [keep_denying(traffic, client, random.Random(args.clients))]
        running = [asyncio.ensure_future(task) for task in tasks]
        await asyncio.wait(running, timeout=args.minutes * 60, return_when=asyncio.FIRST_EXCEPTION)
        for task in running:
            task.cancel()
        for task in running:
            with suppress(asyncio.CancelledError):
                await task  # re-raises the error of a failed task


def report(traffic: Traffic, samples: list[Sample]) -> bool:
    """Print outcomes and failures; return whether the test passed."""
    for outcome, count in sorted(traffic.outcomes.items()):
        print(f"{count:8d}  {outcome}")
    print("\n".join(traffic.failures[:20]))
    return verdict(samples) and not traffic.failures


def main() -> int:
    """Return 0 if nothing failed and memory did not grow."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--work", type=Path, default=Path("build/soak"), metavar="DIR")
    args = parser.parse_args()
    folder = args.work / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    registry, versions = publish_two(args.items, folder)
    samples: list[Sample] = []
    with service(folder) as (pid, url):
        traffic = Traffic(args.items, url, versions)
        print("| time | RSS MB | PSS MB | anonymous MB | files | threads |")
        print("|---|---|---|---|---|---|")
        asyncio.run(soak(traffic, samples, registry, pid, args))
    is_good = report(traffic, samples)
    print("steady" if is_good else "NOT STEADY")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
