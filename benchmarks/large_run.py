"""Train, publish and serve a large generated shop with one command; measure time and memory.

    python -m benchmarks.large_run --items 1000000 --interactions 5000000 --work DIR

With --kills, the run is repeated in a second bundle folder, killed with SIGKILL that many times
on the way and resumed with the same command; its files must equal those of the first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from tabulate import tabulate

from benchmarks.large_shop import make_shop
from benchmarks.serving.load import send_load
from benchmarks.serving.processes import serving
from index.bundle.manifest import read_manifest
from index.bundle.registry import BundleRegistry

SEED = 1
SAMPLING_S = 0.5
MAX_SAMPLING_SHARE = 0.02  # of the time: the kernel walks all pages, and page faults wait for it
DEFAULT_CONFIG = '[data]\nsplit = "last-fifth"\n[training]\nepochs = 1\nthreads = 2\n'
COMPARED = ("towers.safetensors", "item_vectors.npy", "items.faiss")  # and the cluster map
BODIES = 2_000
SETTLING_S = 15  # a service on one core prepares the cluster map of 10 million items meanwhile
ROLLUP = {"anonymous": "Anonymous:", "resident": "Rss:"}


@dataclass
class Usage:
    """What a training process used.

    Attributes:
        lines: seconds since the start, and line of its standard output.
        anonymous: peak of anonymous memory, bytes.
        resident: peak of resident memory, mapped files included, bytes.
        current: anonymous memory at the latest sample, bytes.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    anonymous: int = 0
    resident: int = 0
    current: int = 0
    status: int = 0
    lines: list[tuple[float, str]] = field(default_factory=list)


def main() -> int:
    """Run the benchmark; return 1 if a killed run differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--interactions", type=int, default=5_000_000)
    parser.add_argument("--work", type=Path, required=True, help="folder of shops and bundles")
    parser.add_argument(
        "--config", type=Path, help="TOML; default: one epoch, two threads, split last-fifth"
    )
    parser.add_argument("--kills", type=int, default=0)
    parsed = parser.parse_args()
    shop = parsed.work / f"shop-{parsed.items}-{parsed.interactions}"
    if not (shop / "shop.json").exists():
        make_shop(shop, parsed.items, parsed.interactions, SEED)
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(parsed.config.read_text() if parsed.config else DEFAULT_CONFIG)
        file.flush()
        with tempfile.TemporaryDirectory(dir=parsed.work) as folder:
            return compare(shop, Path(folder), Path(file.name), parsed.kills)


def compare(shop: Path, work: Path, config: Path, kills: int) -> int:
    """Run once undisturbed and, if there are kills, once with them; serve the bundle."""
    usage = train(shop, work / "bundles", config)
    print_usage(usage)
    if usage.status:
        return 1
    print_latencies(work / "bundles", shop)
    if not kills:
        return 0
    for number in range(1, kills + 1):
        # the first is killed after its cluster map, the others within the epoch and after it
        limit_s = usage.wall_s / (4 if number == 1 else 8)
        killed = train(shop, work / "killed", config, limit_s)
        print(f"kill {number}: after {killed.wall_s:.0f} s, status {killed.status}", flush=True)
    print_usage(train(shop, work / "killed", config))
    expected, actual = digests(work / "bundles"), digests(work / "killed")
    for name in expected:
        print(f"{name}: {'equal' if actual[name] == expected[name] else 'DIFFERENT'}")
    return int(actual != expected)


def train(shop: Path, bundles: Path, config: Path, kill_after_s: float | None = None) -> Usage:
    """Run the trainer, and watch it until it ends or is killed."""
    command = [sys.executable, "-m", "trainer", "run", "--data", shop, "--bundles", bundles]
    usage, started = Usage(), time.monotonic()
    with subprocess.Popen(
        [*map(str, command), "--config", str(config), "--force"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as child:
        assert child.stdout
        watcher = threading.Thread(target=watch_memory, args=(child.pid, usage))
        watcher.start()
        killer = threading.Timer(kill_after_s or 1e9, child.kill)
        killer.daemon = True
        killer.start()
        for line in child.stdout:
            usage.lines.append((time.monotonic() - started, line.rstrip()))
            now = f"{usage.lines[-1][0]:7.1f} s {usage.current / 1e9:5.2f} GB"
            print(f"{now}  {line}", end="", flush=True)
        _, status, used = os.wait4(child.pid, 0)
        killer.cancel()
        watcher.join()
    usage.status, usage.wall_s = os.waitstatus_to_exitcode(status), time.monotonic() - started
    usage.cpu_s = used.ru_utime + used.ru_stime
    return usage


def watch_memory(process_id: int, usage: Usage) -> None:
    """Keep the peaks of a process's memory until it ends."""
    path = Path(f"/proc/{process_id}/smaps_rollup")
    while True:
        started = time.monotonic()
        try:
            lines = path.read_text().splitlines()
        except OSError:
            return
        sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines[1:]}
        for name, key in ROLLUP.items():
            setattr(usage, name, max(getattr(usage, name), sizes.get(key, 0)))
        usage.current = sizes.get(ROLLUP["anonymous"], 0)
        took_s = time.monotonic() - started
        time.sleep(max(SAMPLING_S, took_s / MAX_SAMPLING_SHARE))


def print_usage(usage: Usage) -> None:
    """Print a table of one row."""
    row = [usage.wall_s / 60, usage.cpu_s / 60, usage.anonymous / 1e9, usage.resident / 1e9]
    heads = ["minutes", "CPU minutes", "anonymous GB", "resident GB"]
    print(tabulate([row], heads, floatfmt=".2f"), flush=True)


def print_latencies(bundles: Path, shop: Path) -> None:
    """Serve the bundle; print latencies of known users, 100 candidates each, at once and later."""
    part = next(iter(sorted(shop.rglob("*.parquet"))))
    users = pq.read_table(part, columns=["user_id"])["user_id"].unique()[:BODIES].to_pylist()
    with tempfile.NamedTemporaryFile("w") as bodies, serving("service", bundles, 0) as server:
        bodies.write("\n".join(json.dumps({"user_id": str(user), "k": 100}) for user in users))
        bodies.flush()
        rows = []
        for wait_s, connections in ((0, 1), (SETTLING_S, 1), (0, 16)):
            time.sleep(wait_s)
            send_load(server.url, "/retrieve", Path(bodies.name), connections, 2, 1)  # warm up
            load = send_load(server.url, "/retrieve", Path(bodies.name), connections, 10, 1)
            rows.append([connections, load.rps, load.p50_ms, load.p99_ms, load.failed])
    print(tabulate(rows, ["connections", "requests/s", "p50 ms", "p99 ms", "failed"]), flush=True)


def digests(bundles: Path) -> dict[str, str]:
    """Return name and digest of the trained files of the current bundle."""
    files = read_manifest(BundleRegistry(bundles).current()).files
    chosen = [name for name in files if name in COMPARED or name.startswith("cluster_map")]
    return {name: files[name].sha256 for name in chosen if name.endswith((".npy", *COMPARED))}


if __name__ == "__main__":
    sys.exit(main())
