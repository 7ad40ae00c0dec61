"""A cluster map that is held to draw from: joined with the items known here, and prepared."""

import time
from dataclasses import dataclass

from index.cluster_map import ClusterMap, Hashes
from index.clusters.files import joined, joined_if_akin
from index.clusters.store import ClusterPointer


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


@dataclass(frozen=True, eq=False)
class Wanted:
    """What published maps are to be joined with, and what to draw from meanwhile."""

    known: Hashes
    own: ClusterMap | None


def own_held(wanted: Wanted) -> Held | None:
    """Hold our own map, joined where it is of other rows."""
    own = wanted.own
    if own is None:
        return None
    clusters = own if own.id_hashes is wanted.known else joined(own, wanted.known)
    return Held(clusters, own, None, time.time())


def published_held(source: ClusterMap, pointer: ClusterPointer, wanted: Wanted) -> Held:
    """Hold a published map, joined and prepared.

    Raises ForeignClusterMapError, FaultyClusterMapError as `joined_if_akin`.
    """
    clusters = joined_if_akin(source, wanted.known)
    prepare(clusters)
    return Held(clusters, source, pointer, time.time())


def prepare(clusters: ClusterMap) -> None:
    """Compute now what the first draw would have to wait for."""
    if not clusters.is_one_cluster:  # then nothing is near
        clusters.nearness  # noqa: B018  # computed once, kept
