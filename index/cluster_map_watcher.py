"""Watcher of the current cluster map; keeps the last valid map joined and ready to sample.

The thread loads, validates, joins and warms up a map; samplers see one reference change. If the
store is unreachable, empty, damaged or holds a map of another catalogue, the active map stays.
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
    """Items that maps are joined with, and the map to use until one is published.

    Attributes:
        id_hashes: [num_items], in the row order of the sampler.
        fallback: Map of the bundle or the training run, if any.
    """

    id_hashes: Hashes
    fallback: ClusterMap | None

    def activate_fallback(self) -> "ActiveMap | None":
        """Activate the fallback map, joined unless it has the same rows."""
        if self.fallback is None:
            return None
        is_joined = self.fallback.id_hashes is self.id_hashes
        clusters = self.fallback if is_joined else join(self.fallback, self.id_hashes)
        return ActiveMap(self, clusters, self.fallback, None)

    def activate(self, source: ClusterMap, pointer: ClusterPointer) -> "ActiveMap":
        """Join a published map and warm it up; raises the errors of `join_matching`."""
        clusters = join_matching(source, self.id_hashes)
        warm_up(clusters)
        return ActiveMap(self, clusters, source, pointer)


@dataclass(frozen=True, eq=False)
class ActiveMap:
    """A map in use and its origin.

    Attributes:
        catalogue: Items whose rows the map refers to.
        clusters: The map joined with them.
        source: The map before the join.
        pointer: Pointer that named it; None for the fallback map.
        since: Unix seconds.
    """

    catalogue: Catalogue
    clusters: ClusterMap
    source: ClusterMap
    pointer: ClusterPointer | None
    since: float = field(default_factory=time.time)


def warm_up(clusters: ClusterMap) -> None:
    """Compute the cached tables that the first sample would otherwise wait for."""
    if not clusters.has_single_cluster:  # a single cluster has no proposal
        clusters.proposal  # noqa: B018  # cached property


class ClusterMapWatcher(Watcher[ActiveMap]):
    """Watcher of one registry.

    Args:
        registry: Registry to watch.
        catalogue: Items to join maps with.
        poll_s: Poll interval.
        on_change: Called in the thread after each swap, with None if no map is active any more;
            called again after the next poll if it fails.
    """

    def __init__(
        self,
        registry: ClusterMapRegistry,
        catalogue: Catalogue,
        *,
        poll_s: float = 2.0,
        on_change: Callable[[ActiveMap | None], None] = lambda _: None,
    ) -> None:
        super().__init__("clusters", poll_s, log, "cluster maps")
        self._registry = registry
        self._on_change = on_change
        self._next_catalogue = self._catalogue = catalogue
        self.value = catalogue.activate_fallback()
        self._published: tuple[ClusterMap, ClusterPointer] | None = None  # last valid map
        self._rejected: tuple[ClusterPointer, tuple[str, ...]] | None = None

    def set_catalogue(self, catalogue: Catalogue) -> None:
        """Join maps with other items from the next poll on; returns at once."""
        self._next_catalogue = catalogue
        self.request_poll()

    def poll(self) -> Outcome:
        """Activate the current map; repopulate the store if it lost its data."""
        self._apply_next_catalogue()
        if self.value:
            warm_up(self.value.clusters)  # the fallback map; published maps are warm already
        pointer = self._registry.pointer()
        if self._published and self._published[1].is_newer_than(pointer):
            pointer = self._repopulate(*self._published)
        if pointer is None:
            return Outcome("empty", (f"no cluster map is published in {self._registry.location}",))
        if self._rejected and pointer == self._rejected[0]:
            return Outcome("rejected", self._rejected[1])
        return self._follow(pointer)

    def deliver(self, value: ActiveMap | None) -> None:
        """Call `on_change`."""
        self._on_change(value)

    def subscribe(self) -> Notifications | None:
        """Subscribe to pointer moves."""
        return self._registry.subscribe()

    def _apply_next_catalogue(self) -> None:
        """Join with the next catalogue, if any; without a matching map, use its fallback."""
        catalogue, active = self._next_catalogue, None
        if catalogue is self._catalogue:
            return
        if self._published:
            with suppress(
                InvalidClusterMapError, IncompatibleClusterMapError
            ):  # this poll reports it
                active = catalogue.activate(*self._published)
        active = active or catalogue.activate_fallback()
        self._catalogue, self._rejected = catalogue, None  # last: a failed join is repeated
        self.set_value(active)

    def _repopulate(self, source: ClusterMap, pointer: ClusterPointer) -> ClusterPointer | None:
        """Restore the map if the store lost it; return the pointer of the store."""
        if self._registry.repopulate(source, pointer):
            log.warning("cluster map %s restored to %s", source.version, self._registry.location)
        return self._registry.pointer()

    def _follow(self, pointer: ClusterPointer) -> Outcome:
        """Activate the map that the pointer names; load it if the version is new."""
        published = self._published
        if published and published[1].is_newer_than(pointer):
            return Outcome("rejected", (_regression_reason(published[1], pointer),))
        if published and published[0].version == pointer.version:
            self._activate(published[0], pointer)
        else:
            self._activate(self._registry.load(pointer.version), pointer)
        return Outcome("following")

    def _activate(self, source: ClusterMap, pointer: ClusterPointer) -> None:
        active = self.value
        if active and active.source is source and active.catalogue is self._catalogue:
            self.value = replace(active, pointer=pointer)  # same map: no swap
        else:
            try:
                self.set_value(self._catalogue.activate(source, pointer))
            except (InvalidClusterMapError, IncompatibleClusterMapError) as error:
                self._rejected = (pointer, reasons_of(error))
                raise
        self._published = (source, pointer)


def _regression_reason(active: ClusterPointer, current: ClusterPointer) -> str:
    return (
        f"the pointer went back to sequence {current.sequence} (version {current.version}), "
        f"expected {active.sequence} or more; publish, pin or roll back to advance it"
    )
