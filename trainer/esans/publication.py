"""A cluster map into the store, and what a person is told of it."""

from pathlib import Path

from index.cluster_map import ClusterMap
from index.cluster_store import ClusterStore
from index.errors import ClusterStoreError, FaultyClusterMapError


def publish_map(store: ClusterStore, found: ClusterMap) -> str:
    """Publish a map; return what to tell: version and sequence, or what kept it back.

    Raises ClusterStoreError; then nothing was changed.
    """
    pointer = store.publish(found)
    if pointer.version != found.version:
        return (
            f"{store.place}: cluster map {found.version} is stored, but not current: "
            f"{pointer.version} is pinned (sequence {pointer.sequence}); pin the new one with "
            f"`python -m index clusters pin {found.version}`, or `unpin` and publish again"
        )
    return f"{store.place}: cluster map {found.version} is current, sequence {pointer.sequence}"


def publish_own_map(found: ClusterMap, store: ClusterStore, bundle: Path) -> str:
    """Publish the map of a run that is done; return what to tell.

    A store that is away costs the run nothing: its bundle holds the map.
    """
    try:
        return publish_map(store, found)
    except (ClusterStoreError, FaultyClusterMapError, OSError) as error:
        return (
            f"warning: {error}\n  the run's cluster map {found.version} is in its bundle, not "
            "in the store; once that is back, publish it with\n  "
            f"python -m trainer clusters --publish --from {bundle}, naming the same store"
        )
