import shutil

import pytest

from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.cluster_map_watcher import Catalogue, ClusterMapWatcher
from tests.support.cluster_maps import local_maps, numbered_map, redis_maps
from tests.support.redis_server import RedisServer
from tests.support.synthetic_bundle import publish_handmade


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """The folder of a published bundle, read-only."""
    bundles = tmp_path_factory.mktemp("bundles")
    publish_handmade(bundles)
    return BundleRegistry(bundles).current()


@pytest.fixture(scope="session")
def tiny_bundle(published):
    return open_bundle(published)


@pytest.fixture
def bundle_copy(published, tmp_path):
    """A copy of the bundle's folder that a test may change."""
    return shutil.copytree(published, tmp_path / published.name)


@pytest.fixture(scope="session")
def shared_redis():
    """A shared server; the fixture `redis` empties it."""
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def redis(shared_redis):
    """An empty shared server; tests must not stop or fill it."""
    shared_redis.client.flushall()
    return shared_redis


@pytest.fixture
def start_redis():
    """Start servers that only this test uses."""
    servers = []

    def start(*options, **more):
        servers.append(RedisServer(*options, **more))
        return servers[-1].start()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(start_redis):
    """A server that only this test uses; it holds map number 0."""
    server = start_redis()
    redis_maps(server.url).publish(numbered_map(0))
    return server


@pytest.fixture(params=["folder", "redis"])
def open_store(request, tmp_path):
    """Open the store of this test, in a folder and in Redis; each call opens it again."""
    if request.param == "folder":
        return lambda **options: local_maps(tmp_path / "clusters", **options)
    redis = request.getfixturevalue("redis")
    return lambda **options: redis_maps(redis.url, **options)


@pytest.fixture
def store(open_store):
    return open_store()


@pytest.fixture
def following():
    """Start watchers that are stopped at the end of the test."""
    watchers = []

    def follow(store, known, own=None, poll_s=0.1, **options):
        watchers.append(ClusterMapWatcher(store, Catalogue(known, own), poll_s=poll_s, **options))
        watchers[-1].start()
        return watchers[-1]

    yield follow
    for watcher in watchers:
        watcher.stop()
