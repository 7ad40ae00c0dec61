"""Which bundle is live: opened beside the old one, checked, then swapped by one reference.

One thread follows `current`, by content, every `poll_s` seconds, or at once where somebody
asks. What it cannot open, or what cannot answer, is refused and the old bundle serves on. A
refused version is opened again only when something changed: the pointer, or the names and sizes
of the version's files (a slow network volume may show them late), or when somebody asks. Where
the file system itself failed (OSError), every poll tries again.

Nothing here holds on to a bundle that was replaced: its memory is given back with the last
request that began on it.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from index.bitmap import RowSet
from index.bundle.reader import Bundle
from index.deny.follower import DenyFollower
from index.errors import FaultsError, NoBundleError
from index.shelf import Pointer
from index.stores.looks import Looks
from service.live.attempt import Attempt, attempt_at, reasons_of
from service.live.deny_state import deny_told
from service.live.live import Live, open_live, warm
from service.live.live_state import LiveState
from service.logs import fields
from service.metrics import Metrics
from service.moments import unix_time
from service.schemas.state import Readiness

DENY_S = 5.0  # how long the first bundle waits for the deny list
STOP_S = 5.0  # how long a stop waits for an opening that has begun

__all__ = ["Live", "LiveBundle"]

log = logging.getLogger("service")


class Shelves(Protocol):
    """The part of `index.shelf.Shelf` that is used here."""

    folder: Path

    def pointer(self) -> Pointer | None:
        """Say which bundle is current."""

    def path_of(self, version: str) -> Path:
        """Return a version's folder."""


class LiveBundle:
    """Follows the current bundle in a thread of its own.

    on_live  called in that thread with each bundle that has become live
    deny     follows the deny list, from the start to the stop of this; None: nothing is denied
    """

    def __init__(
        self,
        shelf: Shelves,
        poll_s: float,
        metrics: Metrics,
        on_live: Callable[[Bundle], None] = lambda _: None,
        deny: DenyFollower | None = None,
    ) -> None:
        self._shelf = shelf
        self._on_live = on_live
        self._poll_s = poll_s
        self._metrics = metrics
        self._state = LiveState()
        self._deny = deny
        if deny:
            deny.on_change = self._state.deny
        self._refused: Attempt | None = None
        self._is_asked = False  # to open again even what was refused
        self._looks = Looks()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="live-bundle", daemon=True)

    def start(self) -> None:
        """Begin to follow; returns at once, long before a bundle is open."""
        if self._deny:
            self._deny.start()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; an opening that has begun is waited for, but not for ever."""
        self._stopping.set()
        self._looks.want()
        self._thread.join(STOP_S)
        if self._deny:
            self._deny.stop()

    def look(self) -> None:
        """Look at `current` soon, without waiting for the next poll; returns at once."""
        self._is_asked = True
        self._looks.want()

    def wait_for_a_look(self, limit_s: float) -> bool:
        """Look now, and return once a bundle is live or refused; False: not within the time."""
        self._is_asked = True
        return self._looks.wait_for_one(limit_s)

    def get(self) -> Live:
        """Return what is live now; keep it to the request's end.

        Raises NoBundleError while there is none.
        """
        now = self._state.now
        if now.live is None:
            raise NoBundleError(
                f"no bundle is live yet ({now.waiting}); "
                "/readyz tells the reasons; try again soon"
            )
        return now.live

    def denied_of(self, live: Live) -> RowSet | None:
        """Return the rows denied by now of what was live a moment ago, and may be still."""
        now = self._state.now.live
        return now.denied if now and now.bundle is live.bundle else live.denied

    def unknown(self, ids: Sequence[str]) -> list[str]:
        """Return those ids that the live bundle does not hold; all where none is live."""
        live = self._state.now.live
        rows = live.bundle.items.rows_of(ids) if live else [-1] * len(ids)
        return [one for one, row in zip(ids, rows, strict=True) if row < 0]

    def readiness(self) -> Readiness:
        """Say whether questions can be answered, and what is wrong."""
        state = self._state.now
        if state.is_stopped:
            status: Readiness = {"status": "stopped"}
        else:
            status = {"status": "ready" if state.live else state.waiting}
        if state.live:
            status["bundle"] = state.live.bundle.version
        if state.reasons:
            status["reasons"] = list(state.reasons)
        if self._deny:
            status["deny"] = deny_told(self._deny)
        return status

    def _follow(self) -> None:
        try:
            while not self._stopping.is_set():
                with self._looks.one():
                    self._poll()
                self._looks.rest(self._poll_s)
        except Exception as error:  # a thread's last word: without it nobody would know
            log.exception("live bundle is no longer followed")
            reason = (
                f"the current bundle is no longer followed ({type(error).__name__}); restart"
            )
            self._state.is_over(reason)
        finally:
            self._looks.end()

    def _poll(self) -> None:
        """Look at `current` once, and open what it names unless that is live or refused."""
        if self._is_asked:
            self._is_asked, self._refused = False, None
        try:
            pointer = self._shelf.pointer()
        except FaultsError as error:
            self._refused = None
            return self._turn_down("current", error)
        if pointer is None:
            return self._miss_the_pointer()
        live = self._state.now.live
        if live and live.bundle.version == pointer.version:
            return self._be_well(live)
        attempt = attempt_at(self._shelf.folder, pointer)
        return None if attempt == self._refused else self._open(attempt)

    def _be_well(self, live: Live) -> None:
        if self._state.now.reasons:
            log.info("bundle is current again", extra=fields(version=live.bundle.version))
        self._state.is_well()

    def _miss_the_pointer(self) -> None:
        self._refused = None
        reason = f"nothing is published in {self._shelf.folder}"
        if (reason,) != self._state.now.reasons:
            log.warning("no bundle", extra=fields(reasons=[reason]))
        self._state.is_wrong("no bundle", (reason,))

    def _open(self, attempt: Attempt) -> None:
        """Open a bundle and swap, or refuse it and stay."""
        version = attempt.pointer.version
        began = time.perf_counter()
        try:
            live = open_live(self._shelf.path_of(version))
            warm(live)
            made_at_s = unix_time(live.bundle.manifest.made_at)
        except Exception as error:  # whatever a new bundle is like, the old one serves on
            self._refused = None if isinstance(error, OSError) else attempt
            self._metrics.reloads.labels("refused").inc()
            return self._turn_down(version, error)
        load_s = time.perf_counter() - began
        facts = live.bundle.manifest
        self._metrics.show_bundle(version, facts, made_at_s, load_s)
        if self._deny and self._state.now.live is None:
            self._deny.wait_for_the_first(DENY_S)
        self._state.go_live(live)
        self._refused = None
        self._announce(live.bundle)
        log.info(
            "bundle is live",
            extra=fields(version=version, items=facts.items, load_s=round(load_s, 3)),
        )
        return None

    def _announce(self, bundle: Bundle) -> None:
        try:
            self._on_live(bundle)
        except Exception:  # the bundle answers, whatever becomes of what goes with it
            log.exception("a live bundle was not followed up")

    def _turn_down(self, what: str, error: Exception) -> None:
        reasons = reasons_of(error)
        if reasons != self._state.now.reasons:
            log.error("bundle refused", extra=fields(version=what, reasons=reasons))
        self._state.is_wrong("refused", reasons)
