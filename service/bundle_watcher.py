"""Watcher of the current bundle: opens a new one beside the old, warms it up and swaps.

A thread polls `current`. A bundle that cannot be opened or searched is rejected, and the old one
stays live. A rejected version is opened again only if the pointer or the names and sizes of its
files changed (a slow network volume may show them late), or on request. If the machine is at
fault (no memory, an I/O error), polls try again, with back-off.

The watcher keeps no reference to a replaced bundle: its memory is freed when the last request
that uses it ends.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from index.bitmap import RowSet
from index.bundle.reader import Bundle, open_bundle
from index.bundle.registry import BundlePointer, BundleRegistry
from index.denylist import Denylist, DenylistWatcher
from index.errors import BundleError, NoBundleError, UnavailableBundleError, is_machine_fault
from index.search.query import Query
from index.search.retriever import Retriever
from index.storage.watcher import NOT_POLLED, Outcome, Watcher, reasons_of
from service.logging_config import fields
from service.metrics import Metrics, unix_time
from service.schemas.state import DenylistStatus, Readiness

DENYLIST_TIMEOUT_S = 5.0  # the first bundle waits this long for the denylist
WARMUP_K = 100  # candidates per warm-up query
NUM_WARMUP_QUERIES = 8

log = logging.getLogger("service")


@dataclass(frozen=True)
class ServedBundle:
    """A bundle with its retriever; immutable, swapped as a whole.

    Attributes:
        denied: rows of the denylist, never returned; None if there are none.
    """

    bundle: Bundle
    retriever: Retriever
    denied: RowSet | None = None


def open_served_bundle(folder: Path) -> ServedBundle:
    """Open a bundle and build its retriever; raises what `open_bundle` raises."""
    bundle = open_bundle(folder)
    return ServedBundle(bundle, Retriever(bundle))


class Attempt(NamedTuple):
    """A version that was opened; equal to the previous attempt if nothing changed since.

    Attributes:
        sizes: names and sizes of the version's files, empty if they cannot be read.
    """

    pointer: BundlePointer
    sizes: tuple[tuple[str, int], ...]


class BundleWatcher(Watcher[ServedBundle]):
    """Thread that keeps the current bundle live."""

    def __init__(
        self,
        bundles: BundleRegistry,
        poll_s: float,
        metrics: Metrics,
        on_live: Callable[[Bundle], None] = lambda _: None,
        denylist_watcher: DenylistWatcher | None = None,
    ) -> None:
        """Prepare the thread.

        Args:
            on_live: called in the thread with each bundle that went live; if it fails, again
                after the next poll.
            denylist_watcher: started and stopped with this watcher; None: nothing is denied.
        """
        super().__init__("live-bundle", poll_s, log)
        self._bundles = bundles
        self._metrics = metrics
        self._on_live = on_live
        self._denylist_watcher = denylist_watcher
        if denylist_watcher:
            denylist_watcher.on_change = self.set_denylist
        self._denylist: Denylist | None = None
        self._swap_lock = threading.Lock()  # bundles and denylists change in two threads
        self._rejected: Attempt | None = None
        self._has_callback_failed = False  # the last time
        self._should_retry = False  # open even a rejected bundle again

    def start(self) -> None:
        """Start the threads; returns at once, before a bundle is open."""
        if self._denylist_watcher:
            self._denylist_watcher.start()
        super().start()

    def stop(self) -> None:
        """Stop the threads; waits a limited time for a bundle that is being opened."""
        super().stop()
        if self._denylist_watcher:
            self._denylist_watcher.stop()

    def request_poll(self) -> None:
        """Request a poll that opens even a rejected bundle again; returns at once."""
        self._should_retry = True
        super().request_poll()

    def get(self) -> ServedBundle:
        """Return the live bundle; a request uses the same one to its end.

        Raises:
            NoBundleError: no bundle is live yet.
        """
        live = self.value
        if live is None:
            raise NoBundleError(
                f"no bundle is live yet ({self._unready_status()}); "
                "see /readyz for the reasons and try again later"
            )
        return live

    def get_denied_rows(self, live: ServedBundle) -> RowSet | None:
        """Return the rows denied now in a bundle that a request holds, live or replaced."""
        now = self.value
        return now.denied if now and now.bundle is live.bundle else live.denied

    def list_example_ids(self) -> list[str]:
        """Return up to three item ids of the live bundle for examples; none if none is live."""
        live = self.value
        return live.bundle.items.ids_of(range(min(3, len(live.bundle.items)))) if live else []

    def list_unknown_ids(self, ids: Sequence[str]) -> list[str]:
        """Return the ids that the live bundle lacks; all of them if no bundle is live."""
        live = self.value
        rows = live.bundle.items.rows_of(ids) if live else [-1] * len(ids)
        return [item_id for item_id, row in zip(ids, rows, strict=True) if row < 0]

    def set_denylist(self, denylist: Denylist) -> None:
        """Apply a denylist to the live bundle and to all later ones."""
        with self._swap_lock:
            self._denylist = denylist
            if self.value:
                self.value = apply_denylist(self.value, denylist)

    def readiness(self) -> Readiness:
        """Return whether a bundle is live, and the reasons of a failed poll."""
        live, state = self.value, self.state  # in this order: a swap settles the state first
        status: Readiness = {"status": "ready" if live else self._unready_status()}
        if state.status == "stopped":
            status = {"status": "stopped"}
        if live:
            status["bundle"] = live.bundle.version
        if state.reasons and state.reasons != (NOT_POLLED,):
            status["reasons"] = list(state.reasons)
        if self._denylist_watcher:
            status["denylist"] = denylist_status(self._denylist_watcher)
        return status

    def poll(self) -> Outcome:
        """Read `current` and open the version it names unless that is live or rejected."""
        if self._should_retry:
            self._should_retry, self._rejected = False, None
        try:
            pointer = self._bundles.pointer()
        except BundleError as error:
            self._rejected = None
            return self._reject("current", error)
        if pointer is None:
            return self._report_no_pointer()
        if self.value and self.value.bundle.version == pointer.version:
            if self.state.status != "following":
                log.info("bundle is current again", extra=fields(version=pointer.version))
            return Outcome("following")
        attempt = Attempt(pointer, list_file_sizes(self._bundles.folder / pointer.version))
        if attempt == self._rejected:
            return Outcome(self.state.status, self.state.reasons)
        return self._open(attempt)

    def deliver(self, value: ServedBundle | None) -> None:
        """Call `on_live`."""
        if value:
            self._on_live(value.bundle)

    def deliver_pending(self) -> None:
        """Call `on_live` unless it has succeeded; its failure is logged once and undoes no swap."""
        try:
            super().deliver_pending()
            self._has_callback_failed = False
        except Exception:
            if not self._has_callback_failed:
                log.exception("callback after the bundle swap failed; it is repeated")
            self._has_callback_failed = True

    def _unready_status(self) -> Literal["loading", "no bundle", "rejected"]:
        """Return the readiness status while no bundle is live."""
        if self.state.status == "empty":
            return "loading" if self.state.reasons == (NOT_POLLED,) else "no bundle"
        return "rejected" if self.state.status == "rejected" else "loading"

    def _report_no_pointer(self) -> Outcome:
        self._rejected = None
        reasons = (f"nothing is published in {self._bundles.folder}",)
        if reasons != self.state.reasons:
            log.warning("no bundle", extra=fields(reasons=reasons))
        return Outcome("empty", reasons)

    def _open(self, attempt: Attempt) -> Outcome:
        """Open a bundle and swap, or reject it and keep the old one."""
        version, start_s = attempt.pointer.version, time.perf_counter()
        try:
            live = open_served_bundle(self._bundles.path_of(version))
            warm_up(live)
            created_at_s = unix_time(live.bundle.manifest.created_at)
        except Exception as error:  # no bundle, however broken, may replace the old one
            self._rejected = None if is_passing(error) else attempt
            if self._rejected:
                self._metrics.reloads.labels("rejected").inc()
            return self._reject(version, error)
        load_s = time.perf_counter() - start_s
        manifest = live.bundle.manifest
        self._metrics.set_bundle(version, manifest, created_at_s, load_s)
        self._swap(live)
        log.info(
            "bundle is live",
            extra=fields(version=version, items=manifest.items, load_s=round(load_s, 3)),
        )
        return Outcome("following")

    def _swap(self, live: ServedBundle) -> None:
        """Make a bundle live; it is delivered after this poll."""
        if self._denylist_watcher and self.value is None:
            self._denylist_watcher.wait_for_first_poll(DENYLIST_TIMEOUT_S)
        self._rejected = None
        with self._swap_lock:
            live = apply_denylist(live, self._denylist)
            self.set_outcome(Outcome("following"))
            self.set_value(live)

    def _reject(self, version: str, error: Exception) -> Outcome:
        reasons = reasons_of(error)
        event = "bundle cannot be opened" if is_passing(error) else "bundle rejected"
        if reasons != self.state.reasons:
            log.error(event, extra=fields(version=version, reasons=reasons))
        return Outcome("unreachable" if is_passing(error) else "rejected", reasons)


def is_passing(error: Exception) -> bool:
    """Return whether a later try may succeed although the bundle has not changed."""
    return isinstance(error, UnavailableBundleError) or is_machine_fault(error)


def list_file_sizes(folder: Path) -> tuple[tuple[str, int], ...]:
    """Return names and sizes of a folder's files; empty if the folder cannot be read."""
    try:
        return tuple(sorted((path.name, path.stat().st_size) for path in folder.iterdir()))
    except OSError:
        return ()


def apply_denylist(live: ServedBundle, denylist: Denylist | None) -> ServedBundle:
    """Return the bundle with the rows of a denylist; ids that it lacks are ignored."""
    rows = live.bundle.items.rows_of(denylist.ids if denylist else ())
    known = rows[rows >= 0]
    denied = RowSet.from_rows(known, len(live.bundle.items)) if len(known) else None
    return replace(live, denied=denied)


def warm_up(live: ServedBundle) -> None:
    """Run a few queries before the swap, so that no request pays for first-time page faults.

    The queries use items spread over the catalogue, a known user, and no history. An error here
    would have failed requests too.
    """
    bundle = live.bundle
    if bundle.filters is not None:
        bundle.filters.keys.row_of("")
    rows = np.linspace(0, len(bundle.items) - 1, NUM_WARMUP_QUERIES).astype(np.int32)
    queries = [Query(WARMUP_K, history=[item_id]) for item_id in bundle.items.ids_of(rows)]
    if bundle.histories and len(bundle.histories.users):
        queries.append(Query(WARMUP_K, user_id=bundle.histories.users.ids_of([0])[0]))
    live.retriever.retrieve([*queries, Query(WARMUP_K)], live.denied)


def denylist_status(watcher: DenylistWatcher) -> DenylistStatus:
    """Return the denylist watcher's state as shown in /readyz."""
    state, denylist = watcher.state, watcher.value
    status: DenylistStatus = {"status": state.status}
    if denylist:
        status["sequence"], status["count"] = denylist.sequence, len(denylist.ids)
    if state.reasons:
        status["reasons"] = list(state.reasons)
    return status
