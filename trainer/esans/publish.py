"""A cluster map into the store, and what a person is told of it."""

from pathlib import Path

from index.cluster_map import ClusterMap
from index.cluster_map_registry import ClusterMapRegistry
from index.errors import ClusterStoreError, EsansError, InvalidClusterMapError
from trainer.esans.hot_swap import HotSwapSampler
from trainer.samplers.base import Sampler


def publish_map(registry: ClusterMapRegistry, found: ClusterMap) -> str:
    """Publish a map; return what to tell: version and sequence, or what kept it back.

    Raises ClusterStoreError; then nothing was changed.
    """
    pointer = registry.publish(found)
    if pointer.version != found.version:
        return (
            f"{registry.place}: cluster map {found.version} is stored, but not current: "
            f"{pointer.version} is pinned (sequence {pointer.sequence}); pin the new one with "
            f"`python -m index clusters pin {found.version}`, or `unpin` and publish again"
        )
    return f"{registry.place}: cluster map {found.version} is current, sequence {pointer.sequence}"


def publish_map_of(
    clusters: ClusterMap, sampler: Sampler, registry: ClusterMapRegistry, bundle: Path
) -> str:
    """Publish the map of a run that is done; return what to tell.

    A run that followed the store is its guest: it puts its own map only into an empty one.
    A store that is away costs the run nothing: its bundle holds the map.
    """
    if isinstance(sampler, HotSwapSampler) and not (sampler.is_own and is_empty(registry)):
        return f"{registry.place}: left as it is; a run that follows only fills an empty store"
    try:
        return publish_map(registry, clusters)
    except (ClusterStoreError, InvalidClusterMapError, OSError) as error:
        return (
            f"warning: {error}\n  the run's cluster map {clusters.version} is in its bundle, not "
            "in the store; once that is back, publish it with\n  "
            f"python -m trainer clusters --publish --from {bundle}, naming the same store"
        )


def is_empty(registry: ClusterMapRegistry) -> bool:
    """Return whether nothing is published; False where that cannot be told."""
    try:
        return registry.pointer() is None
    except EsansError:
        return False
