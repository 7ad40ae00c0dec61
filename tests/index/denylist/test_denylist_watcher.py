from index.denylist import Denylist, local_denylist, redis_denylist
from tests.support.denylists import corrupt, is_durable
from tests.support.redis_server import wait_until

NOW = 1_769_854_500.0


def test_watcher_keeps_list_through_store_faults(open_denylist_store, tmp_path, redis, follow):
    store, seen = open_denylist_store(), []
    watcher = follow(open_denylist_store(), on_change=lambda denylist: seen.append(denylist.ids))
    assert (watcher.value, watcher.state.status) == (None, "empty")
    first = store.replace(["a"], NOW)
    wait_until(lambda: watcher.value == first)
    corrupt(store, redis, tmp_path, b"nonsense")
    wait_until(lambda: watcher.state.status == "rejected")
    assert watcher.value == first
    if not is_durable(store):
        redis.client.flushall()
    else:
        (tmp_path / "denylist").unlink()
    wait_until(lambda: watcher.state.status == "following")
    assert store.load() == watcher.value == first
    second = store.update(["b"], [], NOW)
    wait_until(lambda: watcher.is_active(second.sequence))
    if not is_durable(store):  # as if Redis restored an old snapshot
        redis.client.set("esans:denylist:current", first.render())
    else:
        (tmp_path / "denylist").write_bytes(first.render())
    wait_until(lambda: store.load() == second)
    assert seen == [("a",), ("a", "b")]
    assert (watcher.state.changes, watcher.state.rejections) == (2, 1)


def test_watcher_keeps_list_while_redis_is_down(start_redis, follow):
    server = start_redis()
    first = redis_denylist(server.url).replace(["a"], NOW)
    watcher = follow(redis_denylist(server.url, timeout_s=0.1))
    assert watcher.value == first
    server.freeze()
    wait_until(lambda: watcher.state.status == "unreachable")
    server.thaw()
    wait_until(lambda: watcher.state.status == "following")
    server.kill()
    wait_until(lambda: watcher.state.status == "unreachable")
    assert watcher.value == first
    server.start()  # empty
    wait_until(lambda: redis_denylist(server.url).load() == first)
    assert watcher.state.errors >= 2


def test_watcher_starts_from_copy_while_redis_is_down(start_redis, tmp_path, follow):
    server, copy = start_redis(), local_denylist(tmp_path / "copy")
    first = redis_denylist(server.url).replace(["a"], NOW)
    follow(redis_denylist(server.url), copy)
    wait_until(lambda: copy.load() == first)
    server.kill()
    seen = []
    late = follow(redis_denylist(server.url), copy, on_change=seen.append)
    assert late.state.status == "unreachable"
    assert late.value == first
    assert seen == [first]
    server.start()
    wait_until(lambda: redis_denylist(server.url).load() == first)


def test_watcher_retries_failed_copy(redis, tmp_path, follow, caplog):
    folder, whole = tmp_path / "later", local_denylist(tmp_path / "whole")
    first = redis_denylist(redis.url).replace(["a"], NOW)
    watcher = follow(redis_denylist(redis.url), local_denylist(folder / "copy"), whole)
    wait_until(lambda: whole.load() == first)
    for _ in range(3):
        assert watcher.poll_now(60)
    assert caplog.text.count("denylist copy not written") == 1
    folder.mkdir()  # as if a full disk has space again
    wait_until(lambda: local_denylist(folder / "copy").load() == first)


def test_watcher_uses_newest_of_copies_and_store(redis, tmp_path, follow):
    copies = [local_denylist(tmp_path / name) for name in ("one", "two", "none")]
    for sequence, copy in enumerate(copies[:2], start=1):
        copy.overwrite_older(Denylist(sequence, (f"item-{sequence}",)))
    (tmp_path / "none").write_bytes(b"nonsense")
    assert follow(redis_denylist(redis.url), *copies).value.sequence == 2
    newest = redis_denylist(redis.url).replace(["a"], NOW)
    wait_until(lambda: all(copy.load() == newest for copy in copies))


def test_watcher_retries_failed_delivery(store, follow):
    calls = []

    def fail_twice(_):
        calls.append(1)
        if len(calls) < 3:
            raise MemoryError("planted")

    first = store.replace(["a"], NOW)
    watcher = follow(store, on_change=fail_twice)
    wait_until(lambda: watcher.is_active(first.sequence))
    assert len(calls) == 3
    wait_until(lambda: watcher.state.status == "following")
