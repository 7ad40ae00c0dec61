import pytest

from index.denylist import DenylistWatcher, local_denylist, redis_denylist


@pytest.fixture(params=["folder", "redis"])
def open_denylist_store(request, tmp_path):
    """Open the store of the test again on each call; in a file, then in Redis."""
    if request.param == "folder":
        return lambda: local_denylist(tmp_path / "denylist")
    redis = request.getfixturevalue("redis")
    return lambda: redis_denylist(redis.url)


@pytest.fixture
def store(open_denylist_store):
    return open_denylist_store()


@pytest.fixture
def follow():
    """Start watchers that are stopped at the end."""
    started = []

    def start(store, *copies, poll_s=0.02, **options):
        started.append(DenylistWatcher(store, copies, poll_s=poll_s, **options))
        started[-1].start()
        started[-1].wait_for_first_poll(60)
        return started[-1]

    yield start
    for watcher in started:
        watcher.stop()
