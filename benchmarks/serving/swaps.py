"""Part `swaps`: throughput and latency during hot swaps of the bundle."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tabulate import tabulate

from benchmarks.serving.load import send_load
from benchmarks.serving.memory import memory_of
from benchmarks.serving.processes import serving
from benchmarks.serving.rounds import CLIENT_CORE
from benchmarks.serving.settings import BenchmarkSettings
from index.bundle.manifest import read_manifest, write_manifest
from index.bundle.registry import BundleRegistry

QUIET_S, SWAPPING_S, SWAP_EVERY_S = 10, 155, 3.0


class Swapper(threading.Thread):
    """Thread that switches the current bundle every few seconds until stopped."""

    def __init__(self, registry: BundleRegistry) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self._registry = registry
        self._stopping = threading.Event()

    def run(self) -> None:
        """Swap until stopped."""
        while not self._stopping.wait(SWAP_EVERY_S):
            current = self._registry.current_version()
            self._registry.make_current(next(v for v in self._registry.versions() if v != current))
            self.count += 1

    def stop(self) -> None:
        """Stop and join."""
        self._stopping.set()
        self.join()


@contextmanager
def swapping(registry: BundleRegistry) -> Iterator[Swapper]:
    """Swap bundles within the context."""
    swapper = Swapper(registry)
    swapper.start()
    try:
        yield swapper
    finally:
        swapper.stop()


def publish_copy(registry: BundleRegistry) -> None:
    """Publish a copy of the current bundle under another version, unless there are two."""
    if len(registry.versions()) > 1:
        return
    with registry.stage() as staged:
        shutil.copytree(registry.current(), staged, dirs_exist_ok=True)
        now = datetime.now(UTC)
        manifest = read_manifest(staged).model_copy(update={"created_at": now.isoformat()})
        write_manifest(staged, manifest)
        registry.make_current(registry.publish(staged, now))


def show(settings: BenchmarkSettings) -> None:
    """Measure without swaps, then with swaps, over 16 connections."""
    rows = []
    for shop in settings.shops:
        registry = BundleRegistry(shop.bundles)
        publish_copy(registry)
        with serving("service", shop.bundles, None, ESANS_POLL_INTERVAL_S="0.1") as server:
            with swapping(registry):  # memory baseline: two bundles were open at once
                send_load(server.url, "/retrieve", shop.bodies, 16, 4 * SWAP_EVERY_S, CLIENT_CORE)
            quiet = send_load(server.url, "/retrieve", shop.bodies, 16, QUIET_S, CLIENT_CORE)
            before = memory_of(server, shop.bundles)
            with swapping(registry) as swapper:
                busy = send_load(server.url, "/retrieve", shop.bodies, 16, SWAPPING_S, CLIENT_CORE)
            after = memory_of(server, shop.bundles)
        rows.append(
            [
                *(f"{shop.items:,}", swapper.count, f"{busy.requests:,}", busy.failed),
                *(f"{quiet.rps:,.0f}", f"{busy.rps:,.0f}"),
                *(f"{quiet.p99_ms:.1f}", f"{busy.p99_ms:.1f}"),
                *(f"{before.own / 1e6:.0f}", f"{after.own / 1e6:.0f}"),
            ]
        )
    heads = [
        "items",
        "swaps",
        "responses",
        "failed",
        "RPS without",
        "with swaps",
        "p99 ms without",
        "with swaps",
    ]
    heads += ["own MB before", "after"]
    print(tabulate(rows, heads, disable_numparse=True), end="\n\n")
