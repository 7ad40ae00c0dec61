"""Cluster map in use: the store's, else the live bundle's own, joined with the bundle's items.

The thread of `ClusterMapWatcher` reads, joins and prepares maps. Each map is kept with the items
that it was joined with, so that a response never mixes rows of two bundles. No request waits for
the store.
"""

import logging
import time
from dataclasses import dataclass

import numpy as np

from index.bundle.reader import Bundle
from index.cluster_map import ClusterMap
from index.cluster_map_registry import ClusterMapRegistry
from index.cluster_map_watcher import ActiveMap, Catalogue, ClusterMapWatcher, warm_up
from index.errors import NoClusterMapError, StoreUnreachableError
from index.ids import IdTable
from index.storage.watcher import NOT_POLLED, WatchState
from service.logging_config import fields
from service.metrics import unix_time
from service.schemas.shared import Source
from service.schemas.state import ClusterWatcherStatus

log = logging.getLogger("service")

CodePair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class BundleCatalogue(Catalogue):
    """Items of a bundle, with which cluster maps are joined."""

    version: str
    items: IdTable


@dataclass(frozen=True, eq=False)
class JoinedClusterMap:
    """A cluster map with the items whose rows it covers."""

    catalogue: BundleCatalogue
    held: ActiveMap
    source: Source

    @property
    def version(self) -> str:
        """Version of the map as published, before the join."""
        return self.held.source.version

    @property
    def age_s(self) -> float:
        """Seconds since the map was built, or since it was loaded if that is unknown."""
        try:
            built_at_s = unix_time(str(self.held.source.made["at"]))
        except (KeyError, ValueError):
            built_at_s = self.held.since
        return max(0.0, time.time() - built_at_s)

    @property
    def unknown_items(self) -> int:
        """Number of items in the bundle that the map lacks."""
        return int((self.held.clusters.codes1 >= len(self.held.source.centroids)).sum())

    def get_codes(self, item_ids: list[str]) -> list[CodePair | None]:
        """Return the semantic ID of each item, None if the bundle or the map lacks it."""
        clusters = self.held.clusters
        rows = self.catalogue.items.rows_of(item_ids)
        is_known = (rows >= 0) & (clusters.codes1[rows] < len(self.held.source.centroids))
        codes = zip(clusters.codes1[rows].tolist(), clusters.codes2[rows].tolist(), strict=True)
        return [pair if known else None for pair, known in zip(codes, is_known, strict=True)]


class ClusterWatcher:
    """Follows the cluster map registry on behalf of the live bundle.

    Attributes:
        store_kind: kind of the registry's store, reported as the source of its maps.
    """

    def __init__(self, registry: ClusterMapRegistry, store_kind: Source, poll_s: float) -> None:
        self.store_kind = store_kind
        self._registry = registry
        self._poll_s = poll_s
        self._watcher: ClusterMapWatcher | None = None

    def set_bundle(self, bundle: Bundle) -> None:
        """Join maps with the items of this bundle from now on, and use its own map if any."""
        own = own_cluster_map(bundle)
        by_row = bundle.items.hashes_by_row()
        known = by_row
        if own is not None and np.array_equal(own.id_hashes, by_row):
            warm_up(own)
            known = own.id_hashes  # the watcher then skips the join
        catalogue = BundleCatalogue(known, own, bundle.version, bundle.items)
        if self._watcher:
            self._watcher.set_catalogue(catalogue)
            return
        watcher = ClusterMapWatcher(
            self._registry, catalogue, poll_s=self._poll_s, on_change=self._log
        )
        watcher.start()
        self._watcher = watcher  # only now: a thread that did not start is started again

    def stop(self) -> None:
        """Stop the watcher's thread if it was started."""
        if self._watcher:
            self._watcher.stop()

    def current(self) -> JoinedClusterMap | None:
        """Return the map in use, if any; a request uses the same one to its end."""
        held = self._watcher.value if self._watcher else None
        if held is None:
            return None
        assert isinstance(held.catalogue, BundleCatalogue)  # set_bundle passes no other kind
        return JoinedClusterMap(held.catalogue, held, self._source_of(held))

    def get(self) -> JoinedClusterMap:
        """Return the map in use; a request uses the same one to its end.

        Raises:
            StoreUnreachableError: the store could not be read yet.
            NoClusterMapError: neither the store nor the bundle has a map.
        """
        joined = self.current()
        if joined:
            return joined
        location = self._registry.location
        if self._is_store_unread():
            raise StoreUnreachableError(
                f"{location}: no cluster map could be read so far, and the live bundle has none "
                "of its own; see /readyz for the reasons and try again later"
            )
        raise NoClusterMapError(
            f"{location}: no cluster map is in use, and the live bundle has none of its own; "
            "publish one with `python -m trainer clusters --publish`, or see /readyz for why "
            "the published one is rejected"
        )

    def _is_store_unread(self) -> bool:
        """Return whether the store may hold a map that could not be read yet."""
        state = self.state()
        return state is None or state.status == "unreachable" or NOT_POLLED in state.reasons

    def state(self) -> WatchState | None:
        """Return the watcher's state; None before the first bundle."""
        return self._watcher.state if self._watcher else None

    def status(self) -> ClusterWatcherStatus | None:
        """Return the state as shown in /readyz and /clusters; None before the first bundle."""
        state, joined = self.state(), self.current()
        if state is None:
            return None
        status: ClusterWatcherStatus = {"status": state.status}
        if joined:
            status["version"], status["source"] = joined.version, joined.source
        if state.reasons:
            status["reasons"] = list(state.reasons)
        return status

    def _source_of(self, held: ActiveMap) -> Source:
        return self.store_kind if held.pointer else "bundle"

    def _log(self, held: ActiveMap | None) -> None:
        if held is None:
            return
        log.info(
            "cluster map is live",
            extra=fields(
                version=held.source.version,
                source=self._source_of(held),
                items=len(held.source),
                sequence=held.pointer.sequence if held.pointer else None,
            ),
        )


def own_cluster_map(bundle: Bundle) -> ClusterMap | None:
    """Return a bundle's own cluster map, or None if it lists items that the bundle lacks.

    The map may lack items appended after training, and its rows may be in another order.
    """
    own = bundle.clusters
    if own is None:
        return None
    if not bundle.items.has_all(own.id_hashes):
        log.warning(
            "bundle's own cluster map ignored: it lists items that the bundle lacks",
            extra=fields(version=own.version),
        )
        return None
    return own
