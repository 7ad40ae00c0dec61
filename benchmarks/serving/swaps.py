"""Answers while the current bundle changes every few seconds."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tabulate import tabulate

from benchmarks.serving.load import ask
from benchmarks.serving.memory import memory_of
from benchmarks.serving.plan import Plan
from benchmarks.serving.processes import serving
from benchmarks.serving.turns import CLIENT_CORE
from index.bundle.manifest import read_manifest, write_manifest
from index.bundle.registry import BundleRegistry

QUIET_S, SWAPPING_S, SWAP_EVERY_S = 10, 155, 3.0


class Swapper(threading.Thread):
    """Makes the other bundle current, every few seconds, until stopped."""

    def __init__(self, registry: BundleRegistry) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self._registry = registry
        self._stopping = threading.Event()

    def run(self) -> None:
        """Swap."""
        while not self._stopping.wait(SWAP_EVERY_S):
            self._registry.roll_back()
            self.count += 1

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        self.join()


@contextmanager
def swapping(registry: BundleRegistry) -> Iterator[Swapper]:
    """Swap as long as the block lasts."""
    swapper = Swapper(registry)
    swapper.start()
    try:
        yield swapper
    finally:
        swapper.stop()


def publish_twin(registry: BundleRegistry) -> None:
    """Publish the current bundle once more under another version, unless that was done."""
    if len(registry.versions()) > 1:
        return
    with registry.stage() as staged:
        shutil.copytree(registry.current(), staged, dirs_exist_ok=True)
        now = datetime.now(UTC)
        twin = read_manifest(staged).model_copy(update={"created_at": now.isoformat()})
        write_manifest(staged, twin)
        registry.make_current(registry.publish(staged, now))


def show(plan: Plan) -> None:
    """Ask over 16 connections, first in peace, then while bundles change."""
    rows = []
    for shop in plan.shops:
        registry = BundleRegistry(shop.bundles)
        publish_twin(registry)
        with serving("service", shop.bundles, None, ESANS_POLL_INTERVAL_S="0.1") as server:
            with swapping(registry):  # two bundles have been held at once: the level to return to
                ask(server.url, "/retrieve", shop.bodies, 16, 4 * SWAP_EVERY_S, CLIENT_CORE)
            quiet = ask(server.url, "/retrieve", shop.bodies, 16, QUIET_S, CLIENT_CORE)
            before = memory_of(server, shop.bundles)
            with swapping(registry) as swapper:
                busy = ask(server.url, "/retrieve", shop.bodies, 16, SWAPPING_S, CLIENT_CORE)
            after = memory_of(server, shop.bundles)
        rows.append(
            [
                *(f"{shop.items:,}", swapper.count, f"{busy.requests:,}", busy.failed),
                *(f"{quiet.rps:,.0f}", f"{busy.rps:,.0f}"),
                *(f"{quiet.p99_ms:.1f}", f"{busy.p99_ms:.1f}"),
                *(f"{before.own / 1e6:.0f}", f"{after.own / 1e6:.0f}"),
            ]
        )
    heads = ["items", "swaps", "answers", "failed", "RPS else", "then", "p99 ms else", "then"]
    heads += ["own MB before", "after"]
    print(tabulate(rows, heads, disable_numparse=True), end="\n\n")
