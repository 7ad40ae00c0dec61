"""Follows the current cluster map in a thread of its own, and holds the last good one.

Reading, checking, joining with the items that are known and preparing happen in the thread; who
draws from the map sees one reference change. Where the store is away, empty, damaged or holds a
map of other items, the map that is held stays, the state says why, and every poll tries again.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from index.cluster_map import ClusterMap, Hashes
from index.clusters.follower_state import NOT_ASKED, FollowerState, News, news_of, reasons_of
from index.clusters.held import Held, Wanted, own_held, prepare, published_held
from index.clusters.pointer_moves import is_needed
from index.clusters.store import Announcements, ClusterPointer, ClusterStore
from index.errors import FaultyClusterMapError, ForeignClusterMapError

__all__ = ["ClusterFollower", "FollowerState", "Held"]

STOP_S = 5.0  # how long a stop waits for a poll that has begun
SLICE_S = 0.25  # how long a stop or a rejoin may go unheard while announcements are awaited

log = logging.getLogger("clusters")


class ClusterFollower:
    """One daemon thread over one store.

    known      [items]  id hashes in the row order of who draws
    own        the bundle's or the run's map: held until the store's is there
    on_change  called in the thread after each swap, None where no map is held any more; where
               it fails, again at the next poll
    """

    def __init__(
        self,
        store: ClusterStore,
        known: Hashes,
        *,
        own: ClusterMap | None,
        poll_s: float = 2.0,
        on_change: Callable[[Held | None], None] | None = None,
    ) -> None:
        self._store = store
        self._poll_s = poll_s
        self._on_change = on_change
        self._wanted = self._met = Wanted(known, own)
        self._held = own_held(self._wanted)
        self._is_owed = False  # a call of `on_change` for what is held
        self._published: tuple[ClusterMap, ClusterPointer] | None = None  # the last good one
        self._refused: tuple[ClusterPointer, tuple[str, ...]] | None = None
        self._state = FollowerState("empty", (NOT_ASKED,), None, None, time.time(), 0, 0)
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="clusters", daemon=True)

    @property
    def held(self) -> Held | None:
        """Return what to draw from now: one reference, no lock."""
        return self._held

    @property
    def state(self) -> FollowerState:
        """Say how the following goes."""
        held = self._held
        pointer = held.pointer if held else None
        return replace(
            self._state,
            version=held.source.version if held else None,
            sequence=pointer.sequence if pointer else None,
        )

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a poll that has begun is waited for, but not for ever."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        self._state = replace(self._state, status="stopped", reasons=(), since=time.time())

    def rejoin(self, known: Hashes, own: ClusterMap | None) -> None:
        """Join with other items from now on; returns at once, the thread does it.

        Until then `held.clusters.id_hashes is known` is false for the new ones.
        """
        self._wanted = Wanted(known, own)
        self._woken.set()

    def _follow(self) -> None:
        """Poll until stopped; should that end otherwise, the state does not say `following`."""
        try:
            hints = self._store.announcements()
            while not self._stopping.is_set():
                self._look()
                self._wait(hints)
            if hints:
                hints.close()
        except Exception as error:
            told = (
                f"the following ended by {type(error).__name__}: {error}; expected it to go on"
            )
            self._tell(News("stopped", (f"{told}; restart, and report this",), 1, error))

    def _wait(self, hints: Announcements | None) -> None:
        """Wait for the next poll, or for a reason to look at once."""
        end = time.monotonic() + self._poll_s
        while not self._woken.is_set() and (left := end - time.monotonic()) > 0:
            if hints is None:
                self._woken.wait(left)
            elif hints.wait(min(left, SLICE_S)):
                break
        self._woken.clear()

    def _look(self) -> None:
        """Poll once; whatever happens, the thread lives on."""
        news = news_of(self._poll)
        self._tell(news_of(lambda: self._paid(news)))

    def _meet_what_is_wanted(self) -> None:
        """Join again where other items are wanted; without a fitting map, hold our own."""
        if self._wanted is self._met:
            return
        self._met, self._refused = self._wanted, None
        try:
            held = published_held(*self._published, self._met) if self._published else None
        except (FaultyClusterMapError, ForeignClusterMapError):
            held = None  # the poll that follows says why
        self._swap(held or own_held(self._met))

    def _poll(self) -> News:
        self._meet_what_is_wanted()
        if self._held:
            prepare(self._held.clusters)  # our own; a published one is prepared already
        pointer = self._store.pointer()
        if self._published and is_needed(pointer, self._published[1]):
            pointer = self._seed(*self._published)
        if pointer is None:
            return News("empty", (f"nothing is published in {self._store.place}",))
        if self._refused and pointer == self._refused[0]:
            return News("refused", self._refused[1])
        return self._take(pointer)

    def _seed(self, source: ClusterMap, pointer: ClusterPointer) -> ClusterPointer | None:
        """Put back what the store has lost; return what it names now."""
        if self._store.seed(source, pointer):
            log.warning("cluster map %s put back into %s", source.version, self._store.place)
        return self._store.pointer()

    def _take(self, pointer: ClusterPointer) -> News:
        """Hold what the pointer names, read where it is a new version."""
        if self._published and pointer.sequence < self._published[1].sequence:
            return News("refused", (_gone_back(self._published[1], pointer),))
        source = self._published[0] if self._published else None
        if source is None or source.version != pointer.version:
            source = self._store.read(pointer.version)
        self._hold(source, pointer)
        return News("following", ())

    def _hold(self, source: ClusterMap, pointer: ClusterPointer) -> None:
        held = self._held
        if held and held.source is source and held.clusters.id_hashes is self._met.known:
            self._held, self._published = replace(held, pointer=pointer), (source, pointer)
            return
        try:
            held = published_held(source, pointer, self._met)
        except (FaultyClusterMapError, ForeignClusterMapError) as error:
            self._refused = (pointer, reasons_of(error))
            raise
        self._published = (source, pointer)
        self._swap(held)

    def _swap(self, held: Held | None) -> None:
        self._held, self._is_owed = held, True
        self._state = replace(self._state, swaps=self._state.swaps + 1)

    def _paid(self, news: News) -> News:
        """Call back for what is held, unless that has gone well already."""
        if self._is_owed and self._on_change:
            self._on_change(self._held)
        self._is_owed = False
        return news

    def _tell(self, news: News) -> None:
        """Change the state; log it once where it is news."""
        state = self._state
        status, reasons, errors, trouble = news
        since = state.since if status == state.status else time.time()
        refusals = state.refusals
        if (status, reasons) != (state.status, state.reasons):
            refusals += status == "refused"
            level = logging.INFO if status in ("following", "empty") else logging.WARNING
            told = "".join(f"; {one}" for one in reasons)
            log.log(level, "cluster maps: %s%s", status, told, exc_info=trouble)
        self._state = replace(
            state,
            status=status,
            reasons=reasons,
            since=since,
            errors=state.errors + errors,
            refusals=refusals,
        )


def _gone_back(held: ClusterPointer, found: ClusterPointer) -> str:
    return (
        f"the pointer went back to sequence {found.sequence} (version {found.version}), "
        f"expected {held.sequence} or more; publish, pin or roll back to move it on"
    )
