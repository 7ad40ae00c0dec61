"""Publish cluster maps to a registry, with a message for the user."""

from pathlib import Path

from index.cluster_map import ClusterMap
from index.cluster_map_registry import ClusterMapRegistry
from index.errors import ClusterStoreError, InvalidClusterMapError
from trainer.esans.hot_swap import HotSwapSampler
from trainer.samplers.base import Sampler


def publish_cluster_map(registry: ClusterMapRegistry, clusters: ClusterMap) -> str:
    """Publish a cluster map; return a message with its version and whether it is current.

    Raises:
        ClusterStoreError: the registry is unavailable; nothing was changed.
    """
    pointer = registry.publish(clusters)
    if pointer.version != clusters.version:
        return (
            f"{registry.location}: cluster map {clusters.version} is stored, but not current: "
            f"{pointer.version} is pinned (sequence {pointer.sequence}); pin the new one with "
            f"`python -m index clusters pin {clusters.version}`, or `unpin` and publish again"
        )
    return (
        f"{registry.location}: cluster map {clusters.version} is current, "
        f"sequence {pointer.sequence}"
    )


def publish_run_cluster_map(
    clusters: ClusterMap, sampler: Sampler, registry: ClusterMapRegistry, bundle: Path
) -> str:
    """Publish the cluster map of a finished training run; return a message.

    A run that follows a registry publishes its own map only if the registry is empty. An
    unavailable registry is a warning, not an error: the bundle holds the map.
    """
    try:
        if isinstance(sampler, HotSwapSampler) and not (
            sampler.is_own_map and registry.pointer() is None
        ):
            return (
                f"{registry.location}: not changed; a run with --follow publishes only to an "
                "empty store"
            )
        return publish_cluster_map(registry, clusters)
    except (ClusterStoreError, InvalidClusterMapError, OSError) as error:
        return (
            f"warning: {error}\n  cluster map {clusters.version} is in the bundle but not in the "
            "store; when the store is available, publish it with\n  "
            f"python -m trainer clusters --publish --from {bundle}, naming the same store"
        )
