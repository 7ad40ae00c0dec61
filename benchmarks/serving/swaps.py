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

    def __init__(self, shelf: BundleRegistry) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self._shelf = shelf
        self._stopping = threading.Event()

    def run(self) -> None:
        """Swap."""
        while not self._stopping.wait(SWAP_EVERY_S):
            self._shelf.roll_back()
            self.count += 1

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        self.join()


@contextmanager
def swapping(shelf: BundleRegistry) -> Iterator[Swapper]:
    """Swap as long as the block lasts."""
    swapper = Swapper(shelf)
    swapper.start()
    try:
        yield swapper
    finally:
        swapper.stop()


def publish_twin(shelf: BundleRegistry) -> None:
    """Publish the current bundle once more under another version, unless that was done."""
    if len(shelf.versions()) > 1:
        return
    with shelf.stage() as staged:
        shutil.copytree(shelf.current(), staged, dirs_exist_ok=True)
        now = datetime.now(UTC)
        twin = read_manifest(staged).model_copy(update={"made_at": now.isoformat()})
        write_manifest(staged, twin)
        shelf.make_current(shelf.publish(staged, now))


def show(plan: Plan) -> None:
    """Ask over 16 connections, first in peace, then while bundles change."""
    rows = []
    for shop in plan.shops:
        shelf = BundleRegistry(shop.bundles)
        publish_twin(shelf)
        with serving("service", shop.bundles, None, ESANS_POLL_S="0.1") as server:
            with swapping(shelf):  # two bundles have been held at once: the level to return to
                ask(server.url, "/retrieve", shop.bodies, 16, 4 * SWAP_EVERY_S, CLIENT_CORE)
            quiet = ask(server.url, "/retrieve", shop.bodies, 16, QUIET_S, CLIENT_CORE)
            before = memory_of(server, shop.bundles)
            with swapping(shelf) as swapper:
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
