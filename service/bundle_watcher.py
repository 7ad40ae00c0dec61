"""Which bundle is live: opened beside the old one, checked, then swapped by one reference.

One thread watches `current`. What it cannot open, or what cannot answer, is refused and the old
bundle serves on. A refused version is opened again only when something changed: the pointer, or
the names and sizes of the version's files (a slow network volume may show them late), or when
somebody asks. Where the file system itself failed (OSError), every poll tries again.

Nothing here holds on to a bundle that was replaced: its memory is given back with the last
request that began on it.
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
from index.errors import FaultsError, NoBundleError
from index.search.query import Query
from index.search.retriever import Retriever
from index.storage.watcher import NOT_POLLED, Outcome, Watcher, reasons_of
from service.logging_config import fields
from service.metrics import Metrics, unix_time
from service.schemas.state import DenylistStatus, Readiness

DENY_S = 5.0  # how long the first bundle waits for the denylist
WARM_COUNT = 100  # candidates of a query that warms up
WARM_QUERIES = 8

log = logging.getLogger("service")


@dataclass(frozen=True)
class Live:
    """A bundle and what answers from it; replaced whole, never changed.

    denied  rows that are never returned, whoever asks; None where there are none
    """

    bundle: Bundle
    retriever: Retriever
    denied: RowSet | None = None


def open_live(folder: Path) -> Live:
    """Open a bundle for answering; raises what `open_bundle` raises."""
    bundle = open_bundle(folder)
    return Live(bundle, Retriever(bundle))


class Attempt(NamedTuple):
    """What was tried to open; equal to the one before where nothing has changed.

    sizes  names and sizes of the version's files, as far as they can be seen
    """

    pointer: BundlePointer
    sizes: tuple[tuple[str, int], ...]


class LiveBundle(Watcher[Live]):
    """Watches the current bundle.

    on_live  called in the thread with each bundle that has become live
    deny     watches the denylist, from the start to the stop of this; None: nothing is denied
    """

    def __init__(
        self,
        bundles: BundleRegistry,
        poll_s: float,
        metrics: Metrics,
        on_live: Callable[[Bundle], None] = lambda _: None,
        deny: DenylistWatcher | None = None,
    ) -> None:
        super().__init__("live-bundle", poll_s, log)
        self._bundles = bundles
        self._metrics = metrics
        self._on_live = on_live
        self._deny = deny
        if deny:
            deny.on_change = self.deny
        self._denylist: Denylist | None = None
        self._changing = threading.Lock()  # bundles and denylists come in two threads
        self._refused: Attempt | None = None
        self._is_asked = False  # to open again even what was refused

    def start(self) -> None:
        """Begin to watch; returns at once, long before a bundle is open."""
        if self._deny:
            self._deny.start()
        super().start()

    def stop(self) -> None:
        """End the threads; an opening that has begun is waited for, but not for ever."""
        super().stop()
        if self._deny:
            self._deny.stop()

    def request_poll(self) -> None:
        """Look at `current` soon, and open even what was refused; returns at once."""
        self._is_asked = True
        super().request_poll()

    def get(self) -> Live:
        """Return what is live now; keep it to the request's end.

        Raises NoBundleError while there is none.
        """
        live = self.value
        if live is None:
            raise NoBundleError(
                f"no bundle is live yet ({self._waiting_for()}); "
                "/readyz tells the reasons; try again soon"
            )
        return live

    def denied_of(self, live: Live) -> RowSet | None:
        """Return the rows denied by now of what was live a moment ago, and may be still."""
        now = self.value
        return now.denied if now and now.bundle is live.bundle else live.denied

    def unknown(self, ids: Sequence[str]) -> list[str]:
        """Return those ids that the live bundle does not hold; all where none is live."""
        live = self.value
        rows = live.bundle.items.rows_of(ids) if live else [-1] * len(ids)
        return [one for one, row in zip(ids, rows, strict=True) if row < 0]

    def deny(self, denylist: Denylist) -> None:
        """Return these items no more, from this bundle and from those to come."""
        with self._changing:
            self._denylist = denylist
            if self.value:
                self.value = denying(self.value, denylist)

    def readiness(self) -> Readiness:
        """Say whether queries can be answered, and what is wrong."""
        live, state = self.value, self.state  # in this order: a swap settles the state first
        status: Readiness = {"status": "ready" if live else self._waiting_for()}
        if state.status == "stopped":
            status = {"status": "stopped"}
        if live:
            status["bundle"] = live.bundle.version
        if state.reasons and state.reasons != (NOT_POLLED,):
            status["reasons"] = list(state.reasons)
        if self._deny:
            status["denylist"] = deny_told(self._deny)
        return status

    def poll(self) -> Outcome:
        """Look at `current` once, and open what it names unless that is live or refused."""
        if self._is_asked:
            self._is_asked, self._refused = False, None
        try:
            pointer = self._bundles.pointer()
        except FaultsError as error:
            self._refused = None
            return self._turn_down("current", error)
        if pointer is None:
            return self._miss_pointer()
        if self.value and self.value.bundle.version == pointer.version:
            if self.state.status != "following":
                log.info("bundle is current again", extra=fields(version=pointer.version))
            return Outcome("following")
        attempt = Attempt(pointer, sizes_of(self._bundles.folder / pointer.version))
        if attempt == self._refused:
            return Outcome(self.state.status, self.state.reasons)
        return self._open(attempt)

    def _waiting_for(self) -> Literal["loading", "no bundle", "rejected"]:
        """Say why there is no live bundle."""
        if self.state.status == "empty":
            return "loading" if self.state.reasons == (NOT_POLLED,) else "no bundle"
        return "loading" if self.state.status == "following" else "rejected"

    def _miss_pointer(self) -> Outcome:
        self._refused = None
        reasons = (f"nothing is published in {self._bundles.folder}",)
        if reasons != self.state.reasons:
            log.warning("no bundle", extra=fields(reasons=reasons))
        return Outcome("empty", reasons)

    def _open(self, attempt: Attempt) -> Outcome:
        """Open a bundle and swap, or refuse it and stay."""
        version, began = attempt.pointer.version, time.perf_counter()
        try:
            live = open_live(self._bundles.path_of(version))
            warm(live)
            made_at_s = unix_time(live.bundle.manifest.created_at)
        except Exception as error:  # whatever a new bundle is like, the old one serves on
            self._refused = None if isinstance(error, OSError) else attempt
            self._metrics.reloads.labels("rejected").inc()
            return self._turn_down(version, error)
        load_s = time.perf_counter() - began
        facts = live.bundle.manifest
        self._metrics.show_bundle(version, facts, made_at_s, load_s)
        self._go_live(live)
        log.info(
            "bundle is live",
            extra=fields(version=version, items=facts.items, load_s=round(load_s, 3)),
        )
        return Outcome("following")

    def _go_live(self, live: Live) -> None:
        """Swap, and let what goes with a bundle follow; the bundle answers in any case."""
        if self._deny and self.value is None:
            self._deny.wait_for_first_poll(DENY_S)
        self._refused = None
        with self._changing:
            live = denying(live, self._denylist)
            self.settle(Outcome("following"))
            self.take(live)
        try:
            self._on_live(live.bundle)
        except Exception:
            log.exception("a live bundle was not followed up")

    def _turn_down(self, what: str, error: Exception) -> Outcome:
        reasons = reasons_of(error)
        if reasons != self.state.reasons:
            log.error("bundle refused", extra=fields(version=what, reasons=reasons))
        return Outcome("rejected", reasons)


def sizes_of(folder: Path) -> tuple[tuple[str, int], ...]:
    """Return names and sizes of a folder's files; none where they cannot be read."""
    try:
        return tuple(sorted((one.name, one.stat().st_size) for one in folder.iterdir()))
    except OSError:
        return ()


def denying(live: Live, denylist: Denylist | None) -> Live:
    """Join a denylist with the bundle's items; ids that it does not hold are passed over."""
    rows = live.bundle.items.rows_of(denylist.ids if denylist else ())
    known = rows[rows >= 0]
    denied = RowSet.from_rows(known, len(live.bundle.items)) if len(known) else None
    return replace(live, denied=denied)


def warm(live: Live) -> None:
    """Answer a few queries, so that no caller is the first to touch a page or a graph.

    They are about items from all over the catalogue, a known user, and nobody. Whatever it
    raises, a caller would have met.
    """
    bundle = live.bundle
    if bundle.filters is not None:
        bundle.filters.keys.row_of("")
    rows = np.linspace(0, len(bundle.items) - 1, WARM_QUERIES).astype(np.int32)
    queries = [Query(WARM_COUNT, history=[one]) for one in bundle.items.ids_of(rows)]
    if bundle.histories and len(bundle.histories.users):
        queries.append(Query(WARM_COUNT, user_id=bundle.histories.users.ids_of([0])[0]))
    live.retriever.retrieve([*queries, Query(WARM_COUNT)], live.denied)


def deny_told(deny: DenylistWatcher) -> DenylistStatus:
    """Put the state of the denylist into the operator's words."""
    state, held = deny.state, deny.value
    told: DenylistStatus = {"status": state.status}
    if held:
        told["sequence"], told["count"] = held.sequence, len(held.ids)
    if state.reasons:
        told["reasons"] = list(state.reasons)
    return told
