"""Small numbered cluster maps, and helpers for their registries."""

import shutil
from dataclasses import replace

import numpy as np
from redis import Redis

from index.cluster_map import ClusterMap
from index.cluster_map_registry import ClusterMapRegistry
from index.cluster_map_stores import local_map_blobs, redis_map_blobs
from index.storage.local import LocalBlobStore
from index.storage.redis import STAGED_S
from index.storage.redis_client import TIMEOUT_S
from tests.support.redis_server import wait_until

COUNT, CLUSTERS, CODES, WIDTH = 200, 6, 4, 3


def local_maps(folder, **options):
    """Registry of cluster maps in a folder."""
    return ClusterMapRegistry(local_map_blobs(folder), **options)


def redis_maps(url, namespace="esans", timeout_s=TIMEOUT_S, staged_s=STAGED_S, **options):
    """Registry of cluster maps in Redis."""
    blobs = redis_map_blobs(url, namespace, timeout_s=timeout_s, staged_s=staged_s)
    return ClusterMapRegistry(blobs, **options)


def is_local(store):
    return isinstance(store.blobs, LocalBlobStore)


def hashes(count=COUNT, first=0):
    """Id hashes of a catalogue; each `first` is another catalogue."""
    return np.arange(first, first + count, dtype=np.uint64) * np.uint64(7919)


def numbered_map(number, count=COUNT, first=0):
    """Random map with `number` as its seed."""
    rng = np.random.default_rng(number)
    return ClusterMap(
        codes1=rng.integers(0, CLUSTERS, count).astype(np.int32),
        codes2=rng.integers(0, CODES, count).astype(np.int32),
        centroids=rng.normal(size=(CLUSTERS, WIDTH)).astype(np.float32),
        id_hashes=hashes(count, first),
        made={"number": number},
    )


def with_id_hashes(clusters, id_hashes):
    """The same map with other id hashes."""
    return replace(clusters, id_hashes=id_hashes)


def clear_store(store):
    """Delete everything in a store, as a flush or a lost folder does; return the store."""
    if is_local(store):
        shutil.rmtree(store.blobs.folder, ignore_errors=True)
    else:
        client = Redis.from_url(store.location.split(",")[0])
        client.flushall()
        client.close()
    return store


def break_pointer(store):
    """Corrupt the pointer of a non-empty store."""
    if is_local(store):
        (store.blobs.folder / "current").write_text("{")
    else:
        client = Redis.from_url(store.location.split(",")[0])
        client.set("esans:clusters:current", "{")
        client.close()
    return store


def list_versions(store):
    return [info.version for info in store.list_maps()]


class CountingRegistry:
    """Registry that counts reads of its pointer."""

    def __init__(self, store):
        self._store = store
        self.polls = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def pointer(self):
        self.polls += 1
        return self._store.pointer()


def wait_for(watcher, status, version):
    wait_until(lambda: watcher.state.status == status)
    wait_until(lambda: watcher.value.source.version == version)


def list_keys(server):
    return sorted(key.decode() for key in server.client.scan_iter())


def list_staged_keys(server):
    return [key for key in list_keys(server) if "staged" in key]
