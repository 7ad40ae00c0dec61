"""Stores of cluster maps: a folder beside the bundles, or Redis."""

from pathlib import Path

from index.cluster_map_registry import ClusterMapRegistry
from index.storage.address import NAMESPACE, validate_namespace
from index.storage.local import LocalBlobStore, Remedies
from index.storage.redis import STAGED_S, RedisBlobStore
from index.storage.redis_client import TIMEOUT_S, RedisClient

FOLDER = "clusters"  # in the bundles folder, used without Redis
LOCAL_REMEDIES = Remedies(
    unreadable="expected a folder of cluster maps; make it readable, and writable for publishers",
    full="expected free space for a map; free some, or remove old maps with "
    "`python -m index clusters prune`",
    read_only="expected write access; publish, or run `python -m index clusters "
    "pin | unpin | rollback | prune --bundles DIR`, where the folder is writable",
)


def local_map_blobs(folder: Path) -> LocalBlobStore:
    """Build the blob store of cluster maps in a folder."""
    return LocalBlobStore(folder, LOCAL_REMEDIES)


def redis_map_blobs(
    url: str,
    namespace: str = NAMESPACE,
    *,
    timeout_s: float = TIMEOUT_S,
    staged_s: float = STAGED_S,
) -> RedisBlobStore:
    """Build the blob store of cluster maps in Redis.

    Raises:
        ConfigError: The URL or the namespace is invalid.
    """
    validate_namespace(namespace, "cluster maps")
    client = RedisClient(url, timeout_s)
    location = f"{client.location}, namespace {namespace}"
    return RedisBlobStore(client, f"{namespace}:clusters:", location, staged_s)


def open_cluster_maps(
    url: str | None, folder: Path, namespace: str = NAMESPACE
) -> ClusterMapRegistry:
    """Open the registry in Redis if a URL is given, else in a folder; connects lazily.

    Raises:
        ConfigError: The URL or the namespace is invalid.
    """
    blobs = redis_map_blobs(url, namespace) if url else local_map_blobs(folder)
    return ClusterMapRegistry(blobs)
