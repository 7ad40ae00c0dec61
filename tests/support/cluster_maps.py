"""Small cluster maps by number, so that a reader can tell one from another."""

import shutil
from dataclasses import replace

import numpy as np
from redis import Redis

from index.cluster_map import ClusterMap
from index.cluster_map_registry import ClusterMapRegistry, local_map_blobs, redis_map_blobs
from index.storage.local import LocalBlobStore
from index.storage.redis import STAGED_S
from index.storage.redis_client import TIMEOUT_S
from tests.support.redis_server import wait_until

COUNT, CLUSTERS, CODES, WIDTH = 200, 6, 4, 3


def local_maps(folder, **options):
    """A registry of cluster maps in a folder."""
    return ClusterMapRegistry(local_map_blobs(folder), **options)


def redis_maps(url, namespace="esans", timeout_s=TIMEOUT_S, staged_s=STAGED_S, **options):
    """A registry of cluster maps in Redis."""
    blobs = redis_map_blobs(url, namespace, timeout_s=timeout_s, staged_s=staged_s)
    return ClusterMapRegistry(blobs, **options)


def is_local(store):
    return isinstance(store.blobs, LocalBlobStore)


def hashes(count=COUNT, first=0):
    """Id hashes of a catalogue; another `first` is another catalogue."""
    return np.arange(first, first + count, dtype=np.uint64) * np.uint64(7919)


def numbered(number, count=COUNT, first=0):
    """The map of a number: the same number, the same map, another number, another one."""
    rng = np.random.default_rng(number)
    return ClusterMap(
        codes1=rng.integers(0, CLUSTERS, count).astype(np.int32),
        codes2=rng.integers(0, CODES, count).astype(np.int32),
        centroids=rng.normal(size=(CLUSTERS, WIDTH)).astype(np.float32),
        id_hashes=hashes(count, first),
        made={"number": number},
    )


def of_known(found, id_hashes):
    """The same map with other ids."""
    return replace(found, id_hashes=id_hashes)


def emptied(store):
    """Make a store forget everything, as a flush or a lost folder does."""
    if is_local(store):
        shutil.rmtree(store.blobs.folder, ignore_errors=True)
    else:
        client = Redis.from_url(store.place.split(",")[0])
        client.flushall()
        client.close()
    return store


def with_broken_pointer(store):
    """Spoil the pointer of a store that is not empty."""
    if is_local(store):
        (store.blobs.folder / "current").write_text("{")
    else:
        client = Redis.from_url(store.place.split(",")[0])
        client.set("esans:clusters:current", "{")
        client.close()
    return store


def versions_of(store):
    return [one.version for one in store.listed()]


class Counted:
    """A store that counts how often it was asked for its pointer."""

    def __init__(self, store):
        self._store = store
        self.polls = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def pointer(self):
        self.polls += 1
        return self._store.pointer()


def wait_for(follower, status, version):
    wait_until(lambda: follower.state.status == status)
    wait_until(lambda: follower.value.source.version == version)


def names(server):
    return sorted(key.decode() for key in server.client.scan_iter())


def staged(server):
    return [name for name in names(server) if "staged" in name]
