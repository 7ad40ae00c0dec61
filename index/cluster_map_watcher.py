"""Watches the current cluster map, and holds the last good one, ready to be drawn from.

Reading, checking, joining with the items that are known and preparing happen in the thread; who
draws from the map sees one reference change. Where the store is away, empty, damaged or holds a
map of other items, the map that is held stays.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from index.arrays import Hashes
from index.cluster_map import ClusterMap
from index.cluster_map_io import join, join_matching
from index.cluster_map_registry import ClusterMapRegistry, ClusterPointer
from index.errors import IncompatibleClusterMapError, InvalidClusterMapError
from index.storage.protocols import Notifications
from index.storage.watcher import Outcome, Watcher, reasons_of

log = logging.getLogger("clusters")


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The items that maps are joined with, and what to draw from until one is published.

    known  [items]  id hashes in the row order of who draws
    own    the bundle's or the run's map, if any
    """

    known: Hashes
    own: ClusterMap | None

    def hold_own(self) -> "HeldMap | None":
        """Hold our own map, joined where it is of other rows."""
        if self.own is None:
            return None
        is_joined = self.own.id_hashes is self.known
        clusters = self.own if is_joined else join(self.own, self.known)
        return HeldMap(self, clusters, self.own, None)

    def hold(self, source: ClusterMap, pointer: ClusterPointer) -> "HeldMap":
        """Hold a published map, joined and prepared.

        Raises IncompatibleClusterMapError, InvalidClusterMapError as `join_matching`.
        """
        clusters = join_matching(source, self.known)
        prepare(clusters)
        return HeldMap(self, clusters, source, pointer)


@dataclass(frozen=True, eq=False)
class HeldMap:
    """A map to draw from, and where it is from.

    catalogue  whose rows it speaks of
    clusters   joined with them
    source     as published, or our own
    pointer    what named it; None for our own
    since      unix seconds
    """

    catalogue: Catalogue
    clusters: ClusterMap
    source: ClusterMap
    pointer: ClusterPointer | None
    since: float = field(default_factory=time.time)


def prepare(clusters: ClusterMap) -> None:
    """Compute now what the first draw would have to wait for."""
    if not clusters.is_one_cluster:  # then nothing is near
        clusters.nearness  # noqa: B018  # computed once, kept


class ClusterMapWatcher(Watcher[HeldMap]):
    """Watches one registry.

    on_change  called in the thread after each swap, None where no map is held any more; where
               it fails, again after the next poll
    """

    def __init__(
        self,
        registry: ClusterMapRegistry,
        catalogue: Catalogue,
        *,
        poll_s: float = 2.0,
        on_change: Callable[[HeldMap | None], None] = lambda _: None,
    ) -> None:
        super().__init__("clusters", poll_s, log, "cluster maps")
        self._registry = registry
        self._on_change = on_change
        self._wanted = self._met = catalogue
        self.value = catalogue.hold_own()
        self._published: tuple[ClusterMap, ClusterPointer] | None = None  # the last good one
        self._refused: tuple[ClusterPointer, tuple[str, ...]] | None = None

    def join_with(self, catalogue: Catalogue) -> None:
        """Join with other items from now on; returns at once, the thread does it.

        Until then `value.catalogue` is the one before.
        """
        self._wanted = catalogue
        self.request_poll()

    def poll(self) -> Outcome:
        """Hold what the pointer names; put it back where the store has lost it."""
        self._meet_wanted()
        if self.value:
            prepare(self.value.clusters)  # our own; a published one is prepared already
        pointer = self._registry.pointer()
        if self._published and self._published[1].is_newer_than(pointer):
            pointer = self._repopulate(*self._published)
        if pointer is None:
            return Outcome("empty", (f"nothing is published in {self._registry.place}",))
        if self._refused and pointer == self._refused[0]:
            return Outcome("rejected", self._refused[1])
        return self._follow(pointer)

    def deliver(self, value: HeldMap | None) -> None:
        """Tell of a swap."""
        self._on_change(value)

    def subscribe(self) -> Notifications | None:
        """Listen for changes of the pointer."""
        return self._registry.subscribe()

    def _meet_wanted(self) -> None:
        """Join again where other items are wanted; without a fitting map, hold our own."""
        if self._wanted is self._met:
            return
        self._met, self._refused = self._wanted, None
        held = None
        if self._published:
            with suppress(
                InvalidClusterMapError, IncompatibleClusterMapError
            ):  # this poll says why
                held = self._met.hold(*self._published)
        self.take(held or self._met.hold_own())

    def _repopulate(self, source: ClusterMap, pointer: ClusterPointer) -> ClusterPointer | None:
        """Put back what the store has lost; return what it names now."""
        if self._registry.repopulate(source, pointer):
            log.warning("cluster map %s put back into %s", source.version, self._registry.place)
        return self._registry.pointer()

    def _follow(self, pointer: ClusterPointer) -> Outcome:
        """Hold what the pointer names, read where it is a new version."""
        published = self._published
        if published and published[1].is_newer_than(pointer):
            return Outcome("rejected", (_gone_back(published[1], pointer),))
        if published and published[0].version == pointer.version:
            self._hold(published[0], pointer)
        else:
            self._hold(self._registry.read(pointer.version), pointer)
        return Outcome("following")

    def _hold(self, source: ClusterMap, pointer: ClusterPointer) -> None:
        held = self.value
        if held and held.source is source and held.catalogue is self._met:
            self.value = replace(held, pointer=pointer)  # the map is the same: no swap
        else:
            try:
                self.take(self._met.hold(source, pointer))
            except (InvalidClusterMapError, IncompatibleClusterMapError) as error:
                self._refused = (pointer, reasons_of(error))
                raise
        self._published = (source, pointer)


def _gone_back(held: ClusterPointer, found: ClusterPointer) -> str:
    return (
        f"the pointer went back to sequence {found.sequence} (version {found.version}), "
        f"expected {held.sequence} or more; publish, pin or roll back to move it on"
    )
