import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from index.__main__ import main
from index.denylist import (
    MAX_ITEMS,
    Denylist,
    DenylistWatcher,
    build_next_denylist,
    local_denylist,
    parse_denylist,
    parse_head,
    redis_denylist,
)
from index.errors import (
    InvalidDenylistError,
    NoDenylistError,
    ReadOnlyStoreError,
    StoreUnreachableError,
    TooManyDeniedError,
)
from tests.conftest import ROOT
from tests.support.redis_server import wait_until

NOW = 1_769_854_500.0
UNUSUAL_IDS = [
    "ünï",
    'a "quote"',
    "two\nlines",
    " spaced ",
    "tab\there",
    "\u2028",
    "007",
    "x" * 512,
]


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


@given(st.sets(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)))
def test_parse_denylist_inverts_render(ids):
    written = build_next_denylist(None, ids, NOW)
    assert parse_denylist(written.render(), "here") == written
    assert parse_head(written.render()[:256], "here") == written.head


@given(st.data())
def test_parse_denylist_detects_any_changed_byte(data):
    content = bytearray(build_next_denylist(None, UNUSUAL_IDS, NOW).render())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    try:
        parsed = parse_denylist(bytes(content), "here")
    except InvalidDenylistError:
        return
    assert sorted(parsed.ids) == sorted(UNUSUAL_IDS)  # only the sequence has no digest


def test_denylist_sequence_grows_when_clock_goes_back():
    first = build_next_denylist(None, ["a"], NOW)
    assert first.sequence == int(NOW * 1_000)
    assert build_next_denylist(first, ["b"], NOW - 60).sequence == first.sequence + 1


def test_denylist_rejects_too_many_ids():
    ids = [str(number) for number in range(MAX_ITEMS + 1)]
    with pytest.raises(TooManyDeniedError, match="found 100,001 ids, expected at most 100,000"):
        build_next_denylist(None, ids, NOW)
    assert len(build_next_denylist(None, ids[1:], NOW).ids) == MAX_ITEMS


def test_store_replace_and_update_are_visible_to_readers(store, open_denylist_store):
    assert (store.head(), store.load()) == (None, None)
    first = store.replace(UNUSUAL_IDS, NOW)
    assert open_denylist_store().load() == first
    assert open_denylist_store().head() == first.head
    second = open_denylist_store().update(["new", "newer"], [*UNUSUAL_IDS[1:], "unknown"], NOW)
    assert store.load() == second
    assert second.ids == ("new", "newer", UNUSUAL_IDS[0])
    assert second.sequence > first.sequence
    assert store.replace([], NOW).ids == ()


def test_store_concurrent_updates_lose_nothing(store, open_denylist_store):
    store.replace([], NOW)

    def add(number):
        for step in range(10):
            open_denylist_store().update([f"{number}-{step}"], [], NOW)

    writers = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    loaded = store.load()
    assert len(loaded.ids) == 40
    assert loaded.sequence == int(NOW * 1_000) + 40


def test_overwrite_older_keeps_newer_list(store):
    old = Denylist(5, ("a",))
    assert store.overwrite_older(old)
    new = store.replace(["b"], NOW)
    assert not store.overwrite_older(old)
    assert store.load() == new
    assert not store.overwrite_older(new)


def test_update_of_empty_redis_fails(redis, tmp_path):
    with pytest.raises(NoDenylistError, match="no denylist is set"):
        redis_denylist(redis.url).update(["a"], [], NOW)
    assert local_denylist(tmp_path / "denylist").update(["a"], [], NOW).ids == ("a",)


def is_durable(store):
    return "denylist:current" not in store.location


def corrupt(store, redis, tmp_path, content):
    if not is_durable(store):
        redis.client.set("esans:denylist:current", content)
    else:
        (tmp_path / "denylist").write_bytes(content)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"{}\n", b"\x00\xff" * 400])
def test_replace_repairs_damaged_list(open_denylist_store, tmp_path, redis, content):
    store = open_denylist_store()
    store.replace(["a"], NOW)
    corrupt(store, redis, tmp_path, content)
    with pytest.raises(InvalidDenylistError, match="python -m index denylist set"):
        store.head()
    with pytest.raises(InvalidDenylistError):
        store.load()
    assert store.replace(["b"], NOW).ids == store.load().ids == ("b",)


def test_update_of_damaged_list_fails(open_denylist_store, tmp_path, redis):
    store = open_denylist_store()
    content = bytearray(store.replace(["a", "b"], NOW).render())
    content[-3] ^= 1  # the head is unchanged
    for damaged in (bytes(content), b"nonsense"):
        corrupt(store, redis, tmp_path, damaged)
        with pytest.raises(InvalidDenylistError, match="replace it with `python"):
            store.update(["c"], [], NOW)
        with pytest.raises(InvalidDenylistError):
            store.load()
    assert store.overwrite_older(Denylist(5, ("a", "b")))
    assert store.update(["c"], [], NOW).ids == ("a", "b", "c")


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


KILLED = """
import sys, time
from pathlib import Path
from index.denylist import local_denylist

store = local_denylist(Path(sys.argv[1]))
print("started", flush=True)
for number in range(10_000):
    store.replace([f"{number}-{i}" for i in range(2_000)], time.time())
"""


def test_killed_writer_leaves_whole_list(tmp_path):
    store, before = local_denylist(tmp_path / "denylist"), None
    for attempt in range(6):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "denylist")]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            wait_until(lambda before=before: store.head() not in (None, before))
            time.sleep(0.003 * attempt)
            writer.kill()
        loaded = store.load()
        assert len(loaded.ids) == 2_000
        assert len({item_id.split("-")[0] for item_id in loaded.ids}) == 1
        before = loaded.head
    store.update(["a"], [], time.time())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".denylist.lock", "denylist"]


READ_ONLY_SCRIPT = """
import os, sys, time
from pathlib import Path
from index.denylist import local_denylist
from index.errors import ReadOnlyStoreError

store = local_denylist(Path(sys.argv[1]))
store.load()
if os.geteuid() == 0:  # root ignores file modes
    os.setresuid(65534, 65534, 65534)
assert store.load().ids == ("a",)
try:
    store.update(["b"], [], time.time())
except ReadOnlyStoreError as error:
    print(error)
"""


def test_read_only_folder_names_command_to_run():
    with tempfile.TemporaryDirectory(
        prefix="bundles-"
    ) as parent:  # tmp_path is private to its user
        folder = Path(parent) / "bundles"
        folder.mkdir()
        local_denylist(folder / "denylist").replace(["a"], NOW)
        for path, mode in (
            (folder / ".denylist.lock", 0o444),
            (folder, 0o555),
            (Path(parent), 0o755),
        ):
            path.chmod(mode)
        command = [sys.executable, "-c", READ_ONLY_SCRIPT, str(folder / "denylist")]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        folder.chmod(0o755)
    assert result.stderr == ""
    assert f"python -m index denylist set | add | remove --bundles {folder}" in result.stdout


def test_replace_does_not_create_missing_folder(tmp_path):
    store = local_denylist(tmp_path / "missing" / "denylist")
    assert store.load() is None
    with pytest.raises(StoreUnreachableError, match=r"missing to be a folder"):
        store.replace(["a"], NOW)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "denylist").mkdir()
    with pytest.raises(StoreUnreachableError):
        local_denylist(tmp_path / "denylist").head()
    assert not issubclass(StoreUnreachableError, ReadOnlyStoreError)


def run(capsys, *words):
    """Run a command; return its exit status, stdout and stderr."""
    status = main(["denylist", *map(str, words)])
    output = capsys.readouterr()
    return status, output.out, output.err


@pytest.mark.parametrize("kind", ["folder", "redis"])
def test_denylist_commands_change_list(tmp_path, capsys, redis, kind):
    options = ["--redis", redis.url] if kind == "redis" else ["--bundles", tmp_path]
    assert "no denylist is set" in run(capsys, "list", *options)[2]
    assert "3 items are denied" in run(capsys, "set", *options, "a", "b", "--", "-c")[1]
    assert run(capsys, "list", *options)[1] == "-c\na\nb\n"
    assert "4 items" in run(capsys, "add", *options, "d")[1]
    assert "2 items" in run(capsys, "remove", *options, "a", "b", "e")[1]
    assert "2 items are denied (sequence" in run(capsys, "show", *options)[1]


def test_denylist_set_reads_ids_from_file_unchanged(tmp_path, capsys):
    file = tmp_path / "ids"
    options = ["--bundles", tmp_path]
    file.write_bytes('\ufeff spaced \r\n"quoted"\r\n\r\nünï\u2028x\nlast'.encode())
    assert run(capsys, "set", *options, "--file", file)[0] == 0
    ids = (" spaced ", '"quoted"', "last", "ünï\u2028x")
    assert local_denylist(tmp_path / "denylist").load().ids == tuple(sorted(ids))
    local_denylist(tmp_path / "denylist").replace(UNUSUAL_IDS, NOW)
    assert "--json-lines" in run(capsys, "list", *options)[2]
    file.write_text(run(capsys, "list", *options, "--json-lines")[1])
    run(capsys, "set", *options, "other")
    run(capsys, "set", *options, "--json-lines", "--file", file)
    assert local_denylist(tmp_path / "denylist").load().ids == tuple(sorted(UNUSUAL_IDS))
    file.write_text("")
    assert "0 items" in run(capsys, "set", *options, "--file", file)[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["set"], "expected either ids or --file FILE"),
        (["set", "a", "--file", "x"], "expected either ids or --file FILE"),
        (["add", "--file", "/no/such"], "cannot be read"),
        (["add", ""], "expected an id of 1 to 512"),
        (["add", "x" * 513], "expected an id of 1 to 512"),
        (["add", os.fsdecode(b"\xff")], "expected an id of 1 to 512"),
        (["add", "--json-lines", "a"], "expected a JSON string"),
    ],
)
def test_denylist_commands_reject_invalid_ids(tmp_path, capsys, words, message):
    status, _, stderr = run(capsys, words[0], "--bundles", tmp_path, *words[1:])
    assert (status, message in stderr) == (1, True)
    assert not (tmp_path / "denylist").exists()


def test_denylist_set_rejects_non_utf8_file(tmp_path, capsys):
    (tmp_path / "ids").write_bytes(b"\xff\xfe")
    words = ["set", "--bundles", tmp_path, "--file", tmp_path / "ids"]
    assert "save it as UTF-8" in run(capsys, *words)[2]
    assert "no store is configured" in run(capsys, "show")[2]
