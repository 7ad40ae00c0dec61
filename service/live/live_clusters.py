"""Which cluster map is used: the store's, or else the live bundle's own, joined with its items.

A follower's thread reads, joins and prepares; here a map meets the items that it was joined
with, so that an answer never mixes the rows of two bundles. Nothing here waits for the store.
"""

import logging
import threading
import time
from dataclasses import dataclass

import numpy as np

from index.bundle.reader import Bundle
from index.cluster_map import ClusterMap, Hashes
from index.clusters.follower import ClusterFollower
from index.clusters.follower_state import NOT_ASKED, FollowerState
from index.clusters.held import Held, prepare
from index.clusters.store import ClusterStore
from index.errors import NoClusterMapError, StoreUnreachableError
from index.ids import IdTable
from service.logs import fields
from service.moments import unix_time
from service.schemas.shared import Source
from service.schemas.state import FollowerAnswer

MOST_CATALOGUES = 4  # bundles that may become live while one map is being joined

log = logging.getLogger("service")

Codes = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The items of a bundle, and their id hashes in row order: what maps are joined with."""

    version: str
    items: IdTable
    known: Hashes


@dataclass(frozen=True, eq=False)
class Joined:
    """A map, and the items whose rows it speaks of."""

    catalogue: Catalogue
    held: Held
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

    def codes_of(self, item_ids: list[str]) -> list[Codes | None]:
        """Return the two codes of each item, None where bundle or map do not know it."""
        clusters = self.held.clusters
        rows = self.catalogue.items.rows_of(item_ids)
        is_known = (rows >= 0) & (clusters.codes1[rows] < len(self.held.source.centroids))
        codes = zip(clusters.codes1[rows].tolist(), clusters.codes2[rows].tolist(), strict=True)
        return [one if known else None for one, known in zip(codes, is_known, strict=True)]


class LiveClusters:
    """Follows the store for whichever bundle is live.

    kind  what the store is, for those who ask where a map is from
    """

    def __init__(self, store: ClusterStore, kind: Source, poll_s: float) -> None:
        self.kind = kind
        self._store = store
        self._poll_s = poll_s
        self._follower: ClusterFollower | None = None
        self._catalogues: tuple[Catalogue, ...] = ()  # the live one first
        self._writing = threading.Lock()  # bundles and maps come in two threads

    def take(self, bundle: Bundle) -> None:
        """Use the items, and the map, of a bundle that has just become live."""
        own = own_map(bundle)
        by_row = bundle.items.hashes_by_row()
        known = by_row
        if own is not None and np.array_equal(own.id_hashes, by_row):
            prepare(own)
            known = own.id_hashes  # the follower need not join it then
        catalogue = Catalogue(bundle.version, bundle.items, known)
        with self._writing:
            self._catalogues = (catalogue, *self._catalogues)[:MOST_CATALOGUES]
        if self._follower:
            return self._follower.rejoin(known, own)
        self._follower = ClusterFollower(
            self._store, known, own=own, poll_s=self._poll_s, on_change=self._note
        )
        return self._follower.start()

    def stop(self) -> None:
        """End the follower's thread, if it ever began."""
        if self._follower:
            self._follower.stop()

    def current(self) -> Joined | None:
        """Return what is used now, if anything; keep it to the request's end."""
        held = self._follower.held if self._follower else None
        if held is None:
            return None
        for catalogue in self._catalogues:
            if held.clusters.id_hashes is catalogue.known:
                return Joined(catalogue, held, self._source_of(held))
        return None

    def get(self) -> Joined:
        """Return what is used now; keep it to the request's end.

        Raises StoreUnreachableError while the store keeps the first map from us, and
        NoClusterMapError where there is none.
        """
        joined = self.current()
        if joined:
            return joined
        place = self._store.place
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
        return state is None or state.status == "unreachable" or NOT_ASKED in state.reasons

    def state(self) -> FollowerState | None:
        """Return how the following goes; None before the first bundle."""
        return self._follower.state if self._follower else None

    def told(self) -> FollowerAnswer | None:
        """Put the state into the caller's words."""
        state, joined = self.state(), self.current()
        if state is None:
            return None
        told: FollowerAnswer = {"status": state.status}
        if joined:
            told["version"], told["source"] = joined.version, joined.source
        if state.reasons:
            told["reasons"] = list(state.reasons)
        return told

    def _source_of(self, held: Held) -> Source:
        return self.kind if held.pointer else "bundle"

    def _note(self, held: Held | None) -> None:
        """Forget the bundles before the one whose items the new map is joined with."""
        with self._writing:
            self._catalogues = self._needed(held)
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

    def _needed(self, held: Held | None) -> tuple[Catalogue, ...]:
        """Return the bundles from the live one back to that of the map, if there is one."""
        for place, catalogue in enumerate(self._catalogues):
            if held is not None and held.clusters.id_hashes is catalogue.known:
                return self._catalogues[: place + 1]
        return self._catalogues[:1]


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
