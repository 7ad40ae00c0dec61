"""Follows the current cluster map in a thread of its own, and holds the last good one.

Reading, checking, joining with the items that are known and preparing happen in the thread; who
draws from the map sees one reference change. Where the store is away, empty, damaged or holds a
map of other items, the map that is held stays, the state says why, and every poll tries again.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from index.cluster_files import joined, joined_if_akin
from index.cluster_map import ClusterMap, Hashes
from index.cluster_store import Announcements, ClusterPointer, ClusterStore
from index.errors import (
    ClusterStoreError,
    EsansError,
    FaultsError,
    FaultyClusterMapError,
    ForeignClusterMapError,
    NoClusterMapError,
    StoreFullError,
)
from index.pointer_moves import is_needed

STOP_S = 5.0  # how long a stop waits for a poll that has begun
SLICE_S = 0.25  # how long a stop or a rejoin may go unheard while announcements are awaited

NOT_ASKED = "not asked yet"  # the reason before the first look

Status = Literal["following", "unreachable", "refused", "empty", "stopped"]

log = logging.getLogger("clusters")


@dataclass(frozen=True, eq=False)
class Held:
    """A map to draw from, and where it is from.

    clusters  its rows are those of `known`: `clusters.id_hashes is known`
    source    as published, or our own
    pointer   what named it; None for our own
    since     unix seconds
    """

    clusters: ClusterMap
    source: ClusterMap
    pointer: ClusterPointer | None
    since: float


@dataclass(frozen=True)
class FollowerState:
    """How the following goes.

    version, sequence  of the map that is held; no sequence where it is our own
    since              unix seconds of the last change of `status`
    swaps, errors      counted since the start; errors at every look that failed
    refusals           maps turned down, each told and counted once
    """

    status: Status
    reasons: tuple[str, ...]
    version: str | None
    sequence: int | None
    since: float
    swaps: int
    errors: int
    refusals: int = 0


@dataclass(frozen=True, eq=False)
class Wanted:
    """What published maps are to be joined with, and what to draw from meanwhile."""

    known: Hashes
    own: ClusterMap | None


class ClusterFollower:
    """One daemon thread over one store.

    known      [items]  id hashes in the row order of who draws
    own        the bundle's or the run's map: held until the store's is there
    on_change  called in the thread after each swap
    """

    def __init__(
        self,
        store: ClusterStore,
        known: Hashes,
        *,
        own: ClusterMap | None,
        poll_s: float = 2.0,
        on_change: Callable[[Held], None] | None = None,
    ) -> None:
        self._store = store
        self._poll_s = poll_s
        self._on_change = on_change
        self._wanted = self._met = Wanted(known, own)
        self._held = own_held(self._wanted)
        self._published: tuple[ClusterMap, ClusterPointer] | None = None  # the last good one
        self._refused: ClusterPointer | None = None
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
        if self._held:
            prepare(self._held.clusters)
        hints = self._store.announcements()
        while not self._stopping.is_set():
            self._look()
            self._wait(hints)
        if hints:
            hints.close()

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
        try:
            self._meet_what_is_wanted()
            self._poll()
        except EsansError as error:
            self._tell(status_of(error), reasons_of(error), errors=1)
        except Exception as error:  # a map or a callback unlike any thought of: say so, poll on
            log.exception("a cluster map could not be taken")
            self._tell("refused", (f"{type(error).__name__}: {error}",), errors=1)

    def _meet_what_is_wanted(self) -> None:
        """Join again where other items are wanted; without a fitting map, hold our own."""
        if self._wanted is self._met:
            return
        self._met, self._refused = self._wanted, None
        try:
            held = self._joined(*self._published) if self._published else own_held(self._met)
        except (FaultyClusterMapError, ForeignClusterMapError):
            held = own_held(self._met)  # the poll that follows says why
        if held:
            prepare(held.clusters)
        self._swap(held)

    def _poll(self) -> None:
        pointer = self._store.pointer()
        if self._published and is_needed(pointer, self._published[1]):
            pointer = self._seed(*self._published)
        if pointer is None:
            return self._tell("empty", (f"nothing is published in {self._store.place}",))
        if pointer != self._refused:
            self._take(pointer)
        return None

    def _seed(self, source: ClusterMap, pointer: ClusterPointer) -> ClusterPointer | None:
        """Put back what the store has lost; return what it names now."""
        if self._store.seed(source, pointer):
            log.warning("cluster map %s put back into %s", source.version, self._store.place)
        return self._store.pointer()

    def _take(self, pointer: ClusterPointer) -> None:
        """Hold what the pointer names, read where it is a new version."""
        if self._published and pointer.sequence < self._published[1].sequence:
            return self._tell("refused", (_gone_back(self._published[1], pointer),))
        source = self._published[0] if self._published else None
        if source is None or source.version != pointer.version:
            source = self._store.read(pointer.version)
        held = self._held
        try:
            if held and held.pointer and held.source is source:
                self._held = replace(held, pointer=pointer)
            else:
                self._swap(self._joined(source, pointer))
        except (FaultyClusterMapError, ForeignClusterMapError):
            self._refused = pointer
            raise
        self._published = (source, pointer)
        return self._tell("following", ())

    def _joined(self, source: ClusterMap, pointer: ClusterPointer) -> Held:
        clusters = joined_if_akin(source, self._met.known)
        prepare(clusters)
        return Held(clusters, source, pointer, time.time())

    def _swap(self, held: Held | None) -> None:
        self._held = held
        self._state = replace(self._state, swaps=self._state.swaps + 1)
        if held and self._on_change:
            self._on_change(held)

    def _tell(self, status: Status, reasons: tuple[str, ...], errors: int = 0) -> None:
        """Change the state; log it once where it is news."""
        state = self._state
        since = state.since if status == state.status else time.time()
        refusals = state.refusals
        if (status, reasons) != (state.status, state.reasons):
            refusals += status == "refused"
            level = logging.INFO if status in ("following", "empty") else logging.WARNING
            log.log(level, "cluster maps: %s%s", status, "".join(f"; {one}" for one in reasons))
        self._state = replace(
            state,
            status=status,
            reasons=reasons,
            since=since,
            errors=state.errors + errors,
            refusals=refusals,
        )


def own_held(wanted: Wanted) -> Held | None:
    """Hold our own map, joined where it is of other rows."""
    own = wanted.own
    if own is None:
        return None
    clusters = own if own.id_hashes is wanted.known else joined(own, wanted.known)
    return Held(clusters, own, None, time.time())


def prepare(clusters: ClusterMap) -> None:
    """Compute now what the first draw would have to wait for."""
    if not clusters.is_one_cluster:  # then nothing is near
        clusters.nearness  # noqa: B018  # computed once, kept


def status_of(error: EsansError) -> Status:
    """Say what an error makes of the following."""
    if isinstance(error, StoreFullError):
        return "empty"  # only who puts a map back into an empty store meets it
    if isinstance(error, NoClusterMapError | ForeignClusterMapError):
        return "refused"
    return "unreachable" if isinstance(error, ClusterStoreError) else "refused"


def reasons_of(error: EsansError) -> tuple[str, ...]:
    """Say why, a reason a fault."""
    if isinstance(error, FaultsError):
        return tuple(f"{error.place}: {fault}" for fault in error.faults)
    return (str(error),)


def _gone_back(held: ClusterPointer, found: ClusterPointer) -> str:
    return (
        f"the pointer went back to sequence {found.sequence} (version {found.version}), "
        f"expected {held.sequence} or more; publish, pin or roll back to move it on"
    )
