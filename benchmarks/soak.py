"""Mixed traffic on a real service for minutes: does anything fail, does memory stay level?

    python -m benchmarks.soak --minutes 10

Single questions with and without filters, batches, similar items, unknown users, bad bodies,
clients that hang up midway; bundles are swapped and the denylist changed every few seconds.
Prints the memory, files and threads of the process over time, and a verdict: medians of the
first and the last quarter, the first minute left out.
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
SEEDS = (0, 1)  # of the two bundles
GROWTH, GROWTH_MB = 0.05, 8.0  # what may be more at the end
Ask = Callable[["Traffic", httpx.AsyncClient, random.Random], Awaitable[str]]


@dataclass(frozen=True)
class Sample:
    """The process at one moment; memory in MB."""

    at_s: float
    rss: float
    pss: float
    anonymous: float
    files: int
    threads: int


@dataclass
class Traffic:
    """What the clients know and count."""

    items: int
    url: str
    versions: list[str]
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def history(self, dice: random.Random) -> list[str]:
        """Choose some items."""
        return [id_of(dice.randrange(self.items)) for _ in range(dice.randint(1, 60))]


async def ask_plain(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> str:
    """One user's question, each option now and then."""
    body: dict[str, Any] = {"history": traffic.history(dice), "k": dice.choice([1, 20, 100])}
    if dice.random() < 0.3:
        body["filter"] = {dice.choice(["half", "twentieth"]): ["true"]}
    if dice.random() < 0.2:
        body["include"] = ["clusters"]
    answer = await client.post("/retrieve", json=body)
    if answer.status_code == 200:
        check(traffic, answer.json(), body["k"], set(body["history"]))
    return expect(answer, 200)


async def ask_batch(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> str:
    """Many users' questions."""
    asked = [{"history": traffic.history(dice), "k": 20} for _ in range(dice.randint(1, 64))]
    answer = await client.post("/retrieve/batch", json={"queries": asked})
    if answer.status_code == 200:
        assert len(answer.json()["results"]) == len(asked)
    return expect(answer, 200)


async def ask_similar(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> str:
    """Items like another."""
    item = id_of(dice.randrange(traffic.items))
    return expect(await client.get(f"/items/{item}/similar", params={"k": 20}), 200)


async def ask_unknown(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> str:
    """A user that nobody knows."""
    body = {"user_id": f"nobody-{dice.random()}"}
    return expect(await client.post("/retrieve", json=body), 200)


async def ask_badly(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> str:
    """A body that is none."""
    bad = dice.choice([b"{", b'{"k": 0}', b'{"histroy": []}', b"[" * 1_000])
    return expect(await client.post("/retrieve", content=bad), 422)


async def ask_and_leave(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> str:
    """Hang up in the middle of a body, or before the answer."""
    body = json.dumps({"history": traffic.history(dice)}).encode()
    head = f"POST /retrieve HTTP/1.1\r\nHost: soak\r\nContent-Length: {len(body)}\r\n\r\n"
    host, _, port = traffic.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + body[: dice.choice([len(body) // 2, len(body)])])
    await writer.drain()
    writer.close()
    return "left"


async def look(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> str:
    """What probes and Prometheus ask."""
    path = dice.choice(["/livez", "/readyz", "/metrics", "/bundle"])
    return expect(await client.get(path), 200)


KINDS: list[tuple[Ask, int]] = [
    (ask_plain, 60), (ask_batch, 4), (ask_similar, 10), (ask_unknown, 5), (ask_badly, 5),
    (ask_and_leave, 8), (look, 3),
]  # fmt: skip


def expect(answer: httpx.Response, status: int) -> str:
    """Name the outcome; a refusal under load is none of the failures."""
    if answer.status_code == 503 and "retry-after" in answer.headers:
        return f"refused: {answer.json()['type'].rsplit(':', 1)[1]}"
    if answer.status_code != status:
        raise AssertionError(f"{answer.request.url.path}: {answer.status_code} {answer.text}")
    return f"{answer.request.url.path.split('/item-')[0]} {status}"


def check(traffic: Traffic, answer: dict[str, Any], k: int, seen: set[str]) -> None:
    """See that an answer is one of the bundles', whole, and without what was seen."""
    ids = [one["item_id"] for one in answer["candidates"]]
    assert answer["bundle"] in traffic.versions, answer["bundle"]
    assert len(ids) == len(set(ids)) == k, f"{len(ids)} of {k}"
    assert not seen & set(ids), "an item of the history came back"


async def keep_asking(traffic: Traffic, client: httpx.AsyncClient, seed: int) -> None:
    """Ask for ever; note what goes wrong."""
    dice = random.Random(seed)
    asks, weights = zip(*KINDS, strict=True)
    while True:
        (ask,) = dice.choices(asks, weights)
        try:
            traffic.outcomes[await ask(traffic, client, dice)] += 1
        except (AssertionError, httpx.HTTPError, OSError, KeyError) as error:
            traffic.failures.append(f"{ask.__name__}: {type(error).__name__} {error}"[:300])
            traffic.outcomes["failed"] += 1


async def keep_swapping(traffic: Traffic, registry: BundleRegistry) -> None:
    """Make one bundle current, then the other."""
    while True:
        for version in traffic.versions:
            registry.make_current(version)
            traffic.outcomes["swaps"] += 1
            await asyncio.sleep(SWAP_S)


async def keep_denying(traffic: Traffic, client: httpx.AsyncClient, dice: random.Random) -> None:
    """Deny some items, see that they are gone, and allow them again."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    while True:
        denied = [id_of(dice.randrange(traffic.items)) for _ in range(20)]
        answer = await client.put("/admin/denylist", json={"items": denied}, headers=headers)
        traffic.outcomes[expect(answer, 200)] += 1
        found = await client.post("/retrieve", json={"history": denied[:5], "k": 1_000})
        if found.status_code == 200:
            ids = {one["item_id"] for one in found.json()["candidates"]}
            if ids & set(denied):
                traffic.failures.append(f"denied items came back: {ids & set(denied)}")
        await asyncio.sleep(SWAP_S / 2)


async def keep_sampling(pid: int, samples: list[Sample]) -> None:
    """Measure the process."""
    began, printed = time.monotonic(), 0.0
    while True:
        at_s = time.monotonic() - began
        samples.append(sample_of(pid, at_s))
        if at_s >= printed:
            printed += PRINT_S
            print_sample(samples[-1])
        await asyncio.sleep(SAMPLE_S)


def sample_of(pid: int, at_s: float) -> Sample:
    """Measure the process now."""
    place = Path("/proc") / str(pid)
    lines = (place / "smaps_rollup").read_text().splitlines()[1:]
    parts = {name: int(size.split()[0]) / 1024 for name, size in (x.split(":") for x in lines)}
    files = len(list((place / "fd").iterdir()))
    threads = len(list((place / "task").iterdir()))
    return Sample(at_s, parts["Rss"], parts["Pss"], parts["Anonymous"], files, threads)


def print_sample(one: Sample) -> None:
    """Print a line of the table."""
    print(
        f"| {one.at_s:5.0f} s | {one.rss:6.1f} | {one.pss:6.1f} | {one.anonymous:6.1f} "
        f"| {one.files:4d} | {one.threads:3d} |",
        flush=True,
    )


def verdict(samples: list[Sample]) -> bool:
    """Compare the first quarter with the last; print it, return whether all is level."""
    warm = [one for one in samples if one.at_s > WARM_S] or samples
    quarter = max(1, len(warm) // 4)
    is_level = True
    for name in ("rss", "pss", "anonymous", "files", "threads"):
        first, last = (
            statistics.median(getattr(one, name) for one in part)
            for part in (warm[:quarter], warm[-quarter:])
        )
        is_good = last <= first * (1 + GROWTH) + GROWTH_MB
        is_level = is_level and is_good
        print(f"{name}: {first:.1f} -> {last:.1f} {'level' if is_good else 'GROWN'}")
    return is_level


def publish_two(items: int, folder: Path) -> tuple[BundleRegistry, list[str]]:
    """Make the bundles that are swapped."""
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
    """Run the service; its process id and address."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith("ESANS_")}
    environment |= {"ESANS_POLL_INTERVAL_S": "0.5", "ESANS_ADMIN_TOKEN": TOKEN}
    command = [sys.executable, "-m", "service", "--bundles", str(folder), "--port", "0"]
    with (
        (folder / "service.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log) as process,
    ):
        try:
            yield process.pid, address_of(folder / "service.log")
        finally:
            process.send_signal(signal.SIGTERM)
            print(f"exit status after SIGTERM: {process.wait(timeout=60)}")


def address_of(log: Path) -> str:
    """Wait until the service listens and is ready; return its address."""
    for _ in range(600):
        lines = [json.loads(one) for one in log.read_text().splitlines() if one.endswith("}")]
        if "bundle is live" in [line["event"] for line in lines]:
            return next(str(one["url"]) for one in lines if one["event"] == "listening")
        time.sleep(0.1)
    raise TimeoutError(f"{log}: the service is not ready; see there")


async def soak(
    traffic: Traffic,
    samples: list[Sample],
    registry: BundleRegistry,
    pid: int,
    asked: argparse.Namespace,
) -> None:
    """Ask, swap, deny and measure for so many minutes."""
    limits = httpx.Limits(max_keepalive_connections=asked.clients)
    async with httpx.AsyncClient(base_url=traffic.url, timeout=30, limits=limits) as client:
        tasks = [keep_asking(traffic, client, seed) for seed in range(asked.clients)]
        tasks += [keep_swapping(traffic, registry), keep_sampling(pid, samples)]
        tasks += [keep_denying(traffic, client, random.Random(asked.clients))]
        running = [asyncio.ensure_future(task) for task in tasks]
        await asyncio.wait(running, timeout=asked.minutes * 60, return_when=asyncio.FIRST_EXCEPTION)
        for task in running:
            task.cancel()
        for task in running:
            with suppress(asyncio.CancelledError):
                await task  # raises where one of them broke


def report(traffic: Traffic, samples: list[Sample]) -> bool:
    """Print what happened; return whether nothing failed and all is level."""
    for outcome, count in sorted(traffic.outcomes.items()):
        print(f"{count:8d}  {outcome}")
    print("\n".join(traffic.failures[:20]))
    return verdict(samples) and not traffic.failures


def main() -> int:
    """Return 0 if nothing failed and memory is level."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--work", type=Path, default=Path("build/soak"), metavar="DIR")
    asked = parser.parse_args()
    folder = asked.work / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    registry, versions = publish_two(asked.items, folder)
    samples: list[Sample] = []
    with service(folder) as (pid, url):
        traffic = Traffic(asked.items, url, versions)
        print("| time | RSS MB | PSS MB | anonymous MB | files | threads |")
        print("|---|---|---|---|---|---|")
        asyncio.run(soak(traffic, samples, registry, pid, asked))
    is_good = report(traffic, samples)
    print("steady" if is_good else "NOT STEADY")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
