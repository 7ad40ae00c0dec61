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
    local_denylist,
    next_list,
    parse_head,
    parse_list,
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
ODD = ["ünï", 'a "quote"', "two\nlines", " spaced ", "tab\there", "\u2028", "007", "x" * 512]


@pytest.fixture(params=["folder", "redis"])
def open_deny(request, tmp_path):
    """Open the store of this test, once more each time; over a file, then over Redis."""
    if request.param == "folder":
        return lambda: local_denylist(tmp_path / "denylist")
    redis = request.getfixturevalue("redis")
    return lambda: redis_denylist(redis.url)


@pytest.fixture
def store(open_deny):
    return open_deny()


@pytest.fixture
def follow():
    """Start followers that are stopped at the end; they tell what came into force."""
    started = []

    def start(store, *copies, poll_s=0.02, **options):
        started.append(DenylistWatcher(store, copies, poll_s=poll_s, **options))
        started[-1].start()
        started[-1].wait_for_first_poll(60)
        return started[-1]

    yield start
    for one in started:
        one.stop()


@given(st.sets(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)))
def test_a_list_is_read_as_it_was_written(ids):
    written = next_list(None, ids, NOW)
    assert parse_list(written.render(), "here") == written
    assert parse_head(written.render()[:256], "here") == written.head


@given(st.data())
def test_a_damaged_list_is_never_taken_for_another(data):
    content = bytearray(next_list(None, ODD, NOW).render())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    try:
        found = parse_list(bytes(content), "here")
    except InvalidDenylistError:
        return
    assert sorted(found.ids) == sorted(ODD)  # the sequence alone has no digest


def test_the_sequence_grows_whatever_the_clock_says():
    first = next_list(None, ["a"], NOW)
    assert first.sequence == int(NOW * 1_000)
    assert next_list(first, ["b"], NOW - 60).sequence == first.sequence + 1


def test_a_list_is_bounded():
    ids = [str(number) for number in range(MAX_ITEMS + 1)]
    with pytest.raises(TooManyDeniedError, match="found 100,001 ids, expected at most 100,000"):
        next_list(None, ids, NOW)
    assert len(next_list(None, ids[1:], NOW).ids) == MAX_ITEMS


def test_what_is_set_added_and_removed_is_there_for_everybody(store, open_deny):
    assert (store.head(), store.read()) == (None, None)
    first = store.replace(ODD, NOW)
    assert open_deny().read() == first
    assert open_deny().head() == first.head
    second = open_deny().change(["new", "newer"], [*ODD[1:], "unknown"], NOW)
    assert store.read() == second
    assert second.ids == ("new", "newer", ODD[0])
    assert second.sequence > first.sequence
    assert store.replace([], NOW).ids == ()


def test_writers_at_once_lose_nothing(store, open_deny):
    store.replace([], NOW)

    def add(number):
        for step in range(10):
            open_deny().change([f"{number}-{step}"], [], NOW)

    writers = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    found = store.read()
    assert len(found.ids) == 40
    assert found.sequence == int(NOW * 1_000) + 40


def test_an_older_list_is_put_back_nowhere(store):
    old = Denylist(5, ("a",))
    assert store.overwrite_older(old)
    new = store.replace(["b"], NOW)
    assert not store.overwrite_older(old)
    assert store.read() == new
    assert not store.overwrite_older(new)


def test_a_store_that_forgets_begins_no_list_by_an_addition(redis, tmp_path):
    with pytest.raises(NoDenylistError, match="holds no denylist"):
        redis_denylist(redis.url).change(["a"], [], NOW)
    assert local_denylist(tmp_path / "denylist").change(["a"], [], NOW).ids == ("a",)


def is_durable(store):
    return "deny:current" not in store.place


def spoil(store, redis, tmp_path, content):
    if not is_durable(store):
        redis.client.set("esans:denylist:current", content)
    else:
        (tmp_path / "denylist").write_bytes(content)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"{}\n", b"\x00\xff" * 400])
def test_nonsense_is_refused_and_repaired_by_a_new_list(open_deny, tmp_path, redis, content):
    store = open_deny()
    store.replace(["a"], NOW)
    spoil(store, redis, tmp_path, content)
    if content or is_durable(store):  # an empty value is no value to Redis
        with pytest.raises(InvalidDenylistError, match="python -m index denylist set"):
            store.head()
    with pytest.raises(InvalidDenylistError):
        store.read()
    assert store.replace(["b"], NOW).ids == store.read().ids == ("b",)


def test_nothing_is_added_to_a_damaged_list_lest_the_rest_be_denied_no_longer(
    open_deny, tmp_path, redis
):
    store = open_deny()
    content = bytearray(store.replace(["a", "b"], NOW).render())
    content[-3] ^= 1  # the head is as it was
    for damaged in (bytes(content), b"nonsense"):
        spoil(store, redis, tmp_path, damaged)
        with pytest.raises(InvalidDenylistError, match="write it anew with `python"):
            store.change(["c"], [], NOW)
        with pytest.raises(InvalidDenylistError):
            store.read()
    assert store.overwrite_older(Denylist(5, ("a", "b")))
    assert store.change(["c"], [], NOW).ids == ("a", "b", "c")


def test_a_follower_holds_the_list_through_all_that_befalls_its_store(
    open_deny, tmp_path, redis, follow
):
    store, seen = open_deny(), []
    follower = follow(open_deny(), on_change=lambda one: seen.append(one.ids))
    assert (follower.value, follower.state.status) == (None, "empty")
    first = store.replace(["a"], NOW)
    wait_until(lambda: follower.value == first)
    spoil(store, redis, tmp_path, b"nonsense")
    wait_until(lambda: follower.state.status == "rejected")
    assert follower.value == first
    if not is_durable(store):
        redis.client.flushall()
    else:
        (tmp_path / "denylist").unlink()
    wait_until(lambda: follower.state.status == "following")
    assert store.read() == follower.value == first
    second = store.change(["b"], [], NOW)
    wait_until(lambda: follower.is_in_force(second.sequence))
    if not is_durable(store):  # as where Redis comes back with what it once saved
        redis.client.set("esans:denylist:current", first.render())
    else:
        (tmp_path / "denylist").write_bytes(first.render())
    wait_until(lambda: store.read() == second)
    assert seen == [("a",), ("a", "b")]
    assert (follower.state.changes, follower.state.refusals) == (2, 1)


def test_a_follower_holds_the_list_while_redis_is_killed_frozen_and_empty(start_redis, follow):
    server = start_redis()
    first = redis_denylist(server.url).replace(["a"], NOW)
    follower = follow(redis_denylist(server.url, timeout_s=0.1))
    assert follower.value == first
    server.freeze()
    wait_until(lambda: follower.state.status == "unreachable")
    server.thaw()
    wait_until(lambda: follower.state.status == "following")
    server.kill()
    wait_until(lambda: follower.state.status == "unreachable")
    assert follower.value == first
    server.start()  # empty
    wait_until(lambda: redis_denylist(server.url).read() == first)
    assert follower.state.errors >= 2


def test_a_copy_keeps_the_list_for_who_starts_while_redis_is_away(start_redis, tmp_path, follow):
    server, copy = start_redis(), local_denylist(tmp_path / "copy")
    first = redis_denylist(server.url).replace(["a"], NOW)
    follow(redis_denylist(server.url), copy)
    wait_until(lambda: copy.read() == first)
    server.kill()
    seen = []
    late = follow(redis_denylist(server.url), copy, on_change=seen.append)
    assert late.state.status == "unreachable"
    assert late.value == first
    assert seen == [first]
    server.start()
    wait_until(lambda: redis_denylist(server.url).read() == first)


def test_a_copy_that_cannot_be_written_is_tried_until_it_can(redis, tmp_path, follow, caplog):
    folder, whole = tmp_path / "later", local_denylist(tmp_path / "whole")
    first = redis_denylist(redis.url).replace(["a"], NOW)
    follower = follow(redis_denylist(redis.url), local_denylist(folder / "copy"), whole)
    wait_until(lambda: whole.read() == first)
    for _ in range(3):
        assert follower.poll_now(60)
    assert caplog.text.count("not kept in a copy") == 1
    folder.mkdir()  # as where a full disk has room again
    wait_until(lambda: local_denylist(folder / "copy").read() == first)


def test_of_two_copies_and_a_store_the_newest_list_is_held(redis, tmp_path, follow):
    copies = [local_denylist(tmp_path / name) for name in ("one", "two", "none")]
    for sequence, copy in enumerate(copies[:2], start=1):
        copy.overwrite_older(Denylist(sequence, (f"of {sequence}",)))
    (tmp_path / "none").write_bytes(b"nonsense")
    assert follow(redis_denylist(redis.url), *copies).value.sequence == 2
    newest = redis_denylist(redis.url).replace(["a"], NOW)
    wait_until(lambda: all(copy.read() == newest for copy in copies))


def test_a_list_that_cannot_be_put_into_force_is_tried_again_until_it_can(store, follow):
    tries = []

    def fail_twice(_):
        tries.append(1)
        if len(tries) < 3:
            raise MemoryError("planted")

    first = store.replace(["a"], NOW)
    follower = follow(store, on_change=fail_twice)
    wait_until(lambda: follower.is_in_force(first.sequence))
    assert len(tries) == 3
    wait_until(lambda: follower.state.status == "following")


KILLED = """
import sys, time
from pathlib import Path
from index.denylist import local_denylist

store = local_denylist(Path(sys.argv[1]))
print("begun", flush=True)
for number in range(10_000):
    store.replace([f"{number}-{place}" for place in range(2_000)], time.time())
"""


def test_a_writer_that_is_killed_leaves_the_old_list_or_the_new_one(tmp_path):
    store, before = local_denylist(tmp_path / "denylist"), None
    for turn in range(6):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "denylist")]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            wait_until(lambda before=before: store.head() not in (None, before))
            time.sleep(0.003 * turn)
            writer.kill()
        found = store.read()
        assert len(found.ids) == 2_000
        assert len({one.split("-")[0] for one in found.ids}) == 1
        before = found.head
    store.change(["a"], [], time.time())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".denylist.lock", "denylist"]


BOUND = """
import os, sys, time
from pathlib import Path
from index.denylist import local_denylist
from index.errors import ReadOnlyStoreError

store = local_denylist(Path(sys.argv[1]))
store.read()
if os.geteuid() == 0:  # who may write anywhere
    os.setresuid(65534, 65534, 65534)
assert store.read().ids == ("a",)
try:
    store.change(["b"], [], time.time())
except ReadOnlyStoreError as error:
    print(error)
"""


def test_who_may_only_read_the_folder_is_told_the_command_to_run_elsewhere():
    with tempfile.TemporaryDirectory(prefix="bundles-") as above:  # pytest's own are private
        folder = Path(above) / "bundles"
        folder.mkdir()
        local_denylist(folder / "denylist").replace(["a"], NOW)
        for path, mode in (
            (folder / ".denylist.lock", 0o444),
            (folder, 0o555),
            (Path(above), 0o755),
        ):
            path.chmod(mode)
        command = [sys.executable, "-c", BOUND, str(folder / "denylist")]
        asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        folder.chmod(0o755)
    assert asked.stderr == ""
    assert f"python -m index denylist set | add | remove --bundles {folder}" in asked.stdout


def test_a_folder_that_is_misspelt_is_not_made(tmp_path):
    store = local_denylist(tmp_path / "misspelt" / "denylist")
    assert store.read() is None
    with pytest.raises(StoreUnreachableError, match=r"misspelt to be a folder; correct"):
        store.replace(["a"], NOW)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "denylist").mkdir()
    with pytest.raises(StoreUnreachableError):
        local_denylist(tmp_path / "denylist").head()
    assert not issubclass(StoreUnreachableError, ReadOnlyStoreError)


def deny(capsys, *words):
    """Run a command; return its status, its words and its complaint."""
    status = main(["denylist", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize("place", ["folder", "redis"])
def test_the_commands_change_the_list(tmp_path, capsys, redis, place):
    where = ["--redis", redis.url] if place == "redis" else ["--bundles", tmp_path]
    assert "holds no denylist" in deny(capsys, "list", *where)[2]
    assert "3 items are denied" in deny(capsys, "set", *where, "a", "b", "--", "-c")[1]
    assert deny(capsys, "list", *where)[1] == "-c\na\nb\n"
    assert "4 items" in deny(capsys, "add", *where, "d")[1]
    assert "2 items" in deny(capsys, "remove", *where, "a", "b", "e")[1]
    assert "2 items are denied (sequence" in deny(capsys, "show", *where)[1]


def test_ids_of_a_file_survive_as_they_are(tmp_path, capsys):
    file = tmp_path / "ids"
    where = ["--bundles", tmp_path]
    file.write_bytes('\ufeff spaced \r\n"quoted"\r\n\r\nünï\u2028x\nlast'.encode())
    assert deny(capsys, "set", *where, "--file", file)[0] == 0
    ids = (" spaced ", '"quoted"', "last", "ünï\u2028x")
    assert local_denylist(tmp_path / "denylist").read().ids == tuple(sorted(ids))
    local_denylist(tmp_path / "denylist").replace(ODD, NOW)
    assert "--json-lines" in deny(capsys, "list", *where)[2]
    file.write_text(deny(capsys, "list", *where, "--json-lines")[1])
    deny(capsys, "set", *where, "other")
    deny(capsys, "set", *where, "--json-lines", "--file", file)
    assert local_denylist(tmp_path / "denylist").read().ids == tuple(sorted(ODD))
    file.write_text("")
    assert "0 items" in deny(capsys, "set", *where, "--file", file)[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["set"], "expected ids, or --file FILE"),
        (["set", "a", "--file", "x"], "expected ids, or --file FILE"),
        (["add", "--file", "/no/such"], "cannot be read"),
        (["add", ""], "expected an id of 1 to 512"),
        (["add", "x" * 513], "expected an id of 1 to 512"),
        (["add", os.fsdecode(b"\xff")], "expected an id of 1 to 512"),
        (["add", "--json-lines", "a"], "expected a JSON text"),
    ],
)
def test_what_is_no_id_is_told(tmp_path, capsys, words, told):
    status, _, said = deny(capsys, words[0], "--bundles", tmp_path, *words[1:])
    assert (status, told in said) == (1, True)
    assert not (tmp_path / "denylist").exists()


def test_a_file_that_is_no_text_is_told(tmp_path, capsys):
    (tmp_path / "ids").write_bytes(b"\xff\xfe")
    words = ["set", "--bundles", tmp_path, "--file", tmp_path / "ids"]
    assert "write it as UTF-8" in deny(capsys, *words)[2]
    assert "found no address of a store" in deny(capsys, "show")[2]
