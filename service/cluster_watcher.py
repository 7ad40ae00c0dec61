"""Which cluster map is used: the store's, or else the live bundle's own, joined with its items.

The watcher's thread reads, joins and prepares; here a map meets the items that it was joined
with, so that a response never mixes the rows of two bundles. Nothing here waits for the store.
"""

import logging
import time
from dataclasses import dataclass

import numpy as np

from index.bundle.reader import Bundle
from index.cluster_map import ClusterMap
from index.cluster_map_registry import ClusterMapRegistry
from index.cluster_map_watcher import Catalogue, ClusterMapWatcher, HeldMap, prepare
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
    """The items of a bundle, which maps are joined with."""

    version: str
    items: IdTable


@dataclass(frozen=True, eq=False)
class Joined:
    """A map, and the items whose rows it speaks of."""

    catalogue: BundleCatalogue
    held: HeldMap
    source: Source

    @property
    def version(self) -> str:
        """Return the map's version as published, before it was joined."""
        return self.held.source.version

    @property
    def age_s(self) -> float:
        """Return the seconds since the map was made, or else since it was first held."""
        try:
            made_at_s = unix_time(str(self.held.source.made["at"]))
        except (KeyError, ValueError):
            made_at_s = self.held.since
        return max(0.0, time.time() - made_at_s)

    @property
    def unknown_items(self) -> int:
        """Return how many items of the bundle the map does not know."""
        return int((self.held.clusters.codes1 >= len(self.held.source.centroids)).sum())

    def codes_of(self, item_ids: list[str]) -> list[CodePair | None]:
        """Return the two codes of each item, None where bundle or map do not know it."""
        clusters = self.held.clusters
        rows = self.catalogue.items.rows_of(item_ids)
        is_known = (rows >= 0) & (clusters.codes1[rows] < len(self.held.source.centroids))
        codes = zip(clusters.codes1[rows].tolist(), clusters.codes2[rows].tolist(), strict=True)
        return [one if known else None for one, known in zip(codes, is_known, strict=True)]


class LiveClusters:
    """Watches the registry for whichever bundle is live.

    kind  what the store is, for those who ask where a map is from
    """

    def __init__(self, registry: ClusterMapRegistry, kind: Source, poll_s: float) -> None:
        self.kind = kind
        self._registry = registry
        self._poll_s = poll_s
        self._watcher: ClusterMapWatcher | None = None

    def take(self, bundle: Bundle) -> None:
        """Use the items, and the map, of a bundle that has just become live."""
        own = own_map(bundle)
        by_row = bundle.items.hashes_by_row()
        known = by_row
        if own is not None and np.array_equal(own.id_hashes, by_row):
            prepare(own)
            known = own.id_hashes  # the watcher need not join it then
        catalogue = BundleCatalogue(known, own, bundle.version, bundle.items)
        if self._watcher:
            return self._watcher.join_with(catalogue)
        self._watcher = ClusterMapWatcher(
            self._registry, catalogue, poll_s=self._poll_s, on_change=self._log
        )
        return self._watcher.start()

    def stop(self) -> None:
        """End the watcher's thread, if it ever began."""
        if self._watcher:
            self._watcher.stop()

    def current(self) -> Joined | None:
        """Return what is used now, if anything; keep it to the request's end."""
        held = self._watcher.value if self._watcher else None
        if held is None:
            return None
        assert isinstance(held.catalogue, BundleCatalogue)  # none else is watched with
        return Joined(held.catalogue, held, self._source_of(held))

    def get(self) -> Joined:
        """Return what is used now; keep it to the request's end.

        Raises StoreUnreachableError while the store keeps the first map from us, and
        NoClusterMapError where there is none.
        """
        joined = self.current()
        if joined:
            return joined
        place = self._registry.place
        if self._may_come():
            raise StoreUnreachableError(
                f"{place}: no cluster map could be read so far, and the live bundle has none "
                "of its own; /readyz tells the reasons; try again soon"
            )
        raise NoClusterMapError(
            f"{place}: no cluster map is in use, and the live bundle has none of its own; "
            "publish one with `python -m trainer clusters --publish`, or see in /readyz what "
            "is wrong with the one that is there"
        )

    def _may_come(self) -> bool:
        """Tell whether the store may hold a map that could not be read yet."""
        state = self.state()
        return state is None or state.status == "unreachable" or NOT_POLLED in state.reasons

    def state(self) -> WatchState | None:
        """Return how the watching goes; None before the first bundle."""
        return self._watcher.state if self._watcher else None

    def told(self) -> ClusterWatcherStatus | None:
        """Put the state into the caller's words."""
        state, joined = self.state(), self.current()
        if state is None:
            return None
        told: ClusterWatcherStatus = {"status": state.status}
        if joined:
            told["version"], told["source"] = joined.version, joined.source
        if state.reasons:
            told["reasons"] = list(state.reasons)
        return told

    def _source_of(self, held: HeldMap) -> Source:
        return self.kind if held.pointer else "bundle"

    def _log(self, held: HeldMap | None) -> None:
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


def own_map(bundle: Bundle) -> ClusterMap | None:
    """Return the map that a bundle brought along, if it is of its items.

    Items that were added since the training are not in it; its order may be another one.
    """
    own = bundle.clusters
    if own is None:
        return None
    if not np.isin(own.id_hashes, bundle.items.hashes).all():
        log.warning("cluster map of other items passed over", extra=fields(version=own.version))
        return None
    return own
