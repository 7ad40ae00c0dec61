import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from index.denylist import (
    MAX_ITEMS,
    Denylist,
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
from tests.support.denylists import UNUSUAL_IDS, corrupt
from tests.support.redis_server import wait_until

NOW = 1_769_854_500.0


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
