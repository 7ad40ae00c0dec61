import shutil

import pytest

from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.cluster_map_watcher import Catalogue, ClusterMapWatcher
from tests.support.cluster_maps import local_maps, numbered, redis_maps
from tests.support.redis_server import RedisServer
from tests.support.synthetic_bundle import publish_handmade


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """The folder of a published bundle; look, but do not touch."""
    bundles = tmp_path_factory.mktemp("bundles")
    publish_handmade(bundles)
    return BundleRegistry(bundles).current()


@pytest.fixture(scope="session")
def tiny_bundle(published):
    return open_bundle(published)


@pytest.fixture
def copied(published, tmp_path):
    """A copy of the bundle's folder, free to be spoilt."""
    return shutil.copytree(published, tmp_path / published.name)


@pytest.fixture(scope="session")
def shared_redis():
    """A server that tests share; what it holds does not outlive a test that asks `redis`."""
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def redis(shared_redis):
    """A server that is up and empty; not to be stopped or filled up."""
    shared_redis.client.flushall()
    return shared_redis


@pytest.fixture
def start_redis():
    """Start a server of the test's own, to do with as it likes."""
    servers = []

    def start(*options, **more):
        servers.append(RedisServer(*options, **more))
        return servers[-1].start()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(start_redis):
    """A server of the test's own that holds the map numbered 0."""
    server = start_redis()
    redis_maps(server.url).publish(numbered(0))
    return server


@pytest.fixture(params=["folder", "redis"])
def open_store(request, tmp_path):
    """Open the store of this test, once more each time; over a folder, then over Redis."""
    if request.param == "folder":
        return lambda **options: local_maps(tmp_path / "clusters", **options)
    redis = request.getfixturevalue("redis")
    return lambda **options: redis_maps(redis.url, **options)


@pytest.fixture
def store(open_store):
    return open_store()


@pytest.fixture
def following():
    """Start followers that are stopped at the end."""
    followers = []

    def follow(store, known, own=None, poll_s=0.1, **options):
        followers.append(ClusterMapWatcher(store, Catalogue(known, own), poll_s=poll_s, **options))
        followers[-1].start()
        return followers[-1]

    yield follow
    for follower in followers:
        follower.stop()
