"""Cache of the coded interactions: it changes nothing but the time, and its faults end no run."""

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.errors import DatasetError
from tests.conftest import ROOT
from tests.support.training_runs import run, write_config
from tests.support.training_shops import interactions, items, write_shop
from trainer.data import event_cache
from trainer.data.dataset import load_dataset
from trainer.data.event_cache import ABANDONED_S, KEPT, MIN_CACHED_BYTES, EventCache


@pytest.fixture
def shop(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    return write_shop(folder)


@pytest.fixture
def cache(tmp_path):
    return EventCache(tmp_path / "cache", min_size_bytes=0)


def entries(cache):
    return sorted(cache.folder.iterdir())


def state_of(data):
    interactions = data.interactions
    arrays = (interactions.user_rows, interactions.item_rows, interactions.parts)
    return data.fingerprint, data.user_ids, [array.tolist() for array in arrays]


ORDERED = [
    interactions(),
    interactions(timestamp=None, seq_pos=[0.5, 1.5, 1.5, 2.0, 1.0, 2.0, 3.0]),
    interactions(timestamp=pa.array([5, 5, 1, 5, 2, 1, 1], pa.timestamp("s", "UTC"))),
    interactions(split=[*["train"] * 2, "test", "valid", "train", "valid", "test"]),
    {name: [*values, values[0]] for name, values in interactions().items()},  # a repeated pair
    "user_id,item_id,timestamp\nann,a,3\nann,b,2\nann,c,1\n",
]


@pytest.mark.parametrize("taken", [*ORDERED, interactions(timestamp=None)])
@pytest.mark.parametrize("split", ["auto", "random"])
def test_cached_dataset_equals_dataset_read(tmp_path, cache, taken, split):
    plain = load_dataset(write_shop(tmp_path, taken), split)
    for _ in range(2):
        cached = load_dataset(tmp_path, split, cache=cache)
        assert state_of(cached) == state_of(plain)
        assert cached.notes == plain.notes
        assert not cached.interactions.user_rows.flags.writeable  # memory-mapped


def test_second_read_uses_the_entry_of_the_first(shop, cache):
    load_dataset(shop, cache=cache)
    (entry,) = entries(cache)
    os.utime(entry, (1, 1))
    load_dataset(shop, "random", seed=3, cache=cache)
    assert [path.stat().st_mtime for path in entries(cache)] == [1]


@pytest.mark.parametrize(
    "changed",
    [
        {"taken": interactions(user_id=["ann"] * 4 + ["rob"] * 3)},
        {"sold": items(item_id=["d", "b", "c", "a"])},
    ],
)
def test_changed_data_has_another_entry(shop, cache, changed):
    load_dataset(shop, cache=cache)
    expected = load_dataset(write_shop(shop, **changed))
    assert state_of(load_dataset(shop, cache=cache)) == state_of(expected)
    assert len(entries(cache)) == 2


def test_split_without_its_column_is_reported_from_the_cache(tmp_path, cache):
    load_dataset(write_shop(tmp_path, interactions(timestamp=None)), cache=cache)
    with pytest.raises(DatasetError) as plain:
        load_dataset(tmp_path, "leave-last-two")
    with pytest.raises(DatasetError) as cached:
        load_dataset(tmp_path, "leave-last-two", cache=cache)
    assert cached.value.faults == plain.value.faults


def test_old_entries_are_removed(shop, cache):
    for count in range(KEPT + 2):
        users = [f"user-{count}"] * 4 + ["bob"] * 3
        load_dataset(write_shop(shop, interactions(user_id=users)), cache=cache)
    assert len(entries(cache)) == KEPT


def test_interrupted_write_leaves_no_file(shop, cache, monkeypatch):
    def interrupt(path):
        return signal.raise_signal(signal.SIGINT) if path.parent == cache.folder else "digest"

    monkeypatch.setattr(event_cache, "sha256_of", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_dataset(shop, cache=cache)
    assert list(cache.folder.iterdir()) == []


def test_files_of_killed_writes_are_removed_after_a_day(shop, cache):
    cache.folder.mkdir()
    old, new = (cache.folder / f".{name}.arrow.1" for name in ("old", "new"))
    for path, age_s in ((old, ABANDONED_S + 60), (new, 60)):
        path.write_text("half")
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    load_dataset(shop, cache=cache)
    assert not old.exists()
    assert len(entries(cache)) == 2  # the new file and the entry


def test_small_data_are_not_cached(shop, tmp_path):
    load_dataset(shop, cache=EventCache(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_run_caches_large_data_in_the_bundle_folder(tmp_path, world):
    shop = shutil.copytree(world, tmp_path / "shop")
    table = pq.read_table(shop / "interactions.parquet")
    noise = np.random.default_rng(0).bytes(MIN_CACHED_BYTES // len(table) + 1)
    table = table.append_column("device", pa.array([noise] * len(table), pa.binary()))
    pq.write_table(table, shop / "interactions.parquet", compression="none", use_dictionary=False)
    config = write_config(tmp_path / "run.toml", {"bundle": {"attributes": ["unknown"]}})
    assert run(shop, tmp_path / "bundles", config) == 1  # after reading
    assert len(list((tmp_path / "bundles" / ".cache").iterdir())) == 1


def test_rejected_data_are_not_cached(shop, cache):
    write_shop(shop, interactions(item_id=["x"] * 7))
    with pytest.raises(DatasetError):
        load_dataset(shop, cache=cache)
    assert not cache.folder.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"short",
        lambda content: content[:-1],
        lambda content: content[:-200] + bytes(168) + content[-32:],
    ],
)
def test_damaged_entry_is_rebuilt(shop, cache, damage):
    plain = load_dataset(shop, cache=cache)
    (entry,) = entries(cache)
    content = entry.read_bytes()
    entry.unlink()  # it is memory-mapped
    entry.write_bytes(damage(content))
    data = load_dataset(shop, cache=cache)
    assert state_of(data) == state_of(plain)
    assert [note for note in data.notes if f"the cache {entry} is damaged" in note]
    assert load_dataset(shop, cache=cache).notes == plain.notes


def test_cache_that_cannot_be_written_is_noted(shop, tmp_path):
    (tmp_path / "taken").write_text("a file")
    data = load_dataset(shop, cache=EventCache(tmp_path / "taken", min_size_bytes=0))
    assert state_of(data) == state_of(load_dataset(shop))
    assert "could not be cached" in data.notes[-1]


LOAD = """
import sys, pathlib
from trainer.data.dataset import load_dataset
from trainer.data.event_cache import EventCache
data = load_dataset(pathlib.Path(sys.argv[1]), cache=EventCache(pathlib.Path(sys.argv[2]), 0))
print(data.fingerprint, data.notes)
"""


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))


def test_full_disk_ends_no_run_and_leaves_nothing(shop, cache):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(shop), str(cache.folder)],
        cwd=ROOT,
        preexec_fn=limit_files,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert load_dataset(shop).fingerprint in done.stdout
    assert "could not be cached" in done.stdout
    assert entries(cache) == []


def read_many(shop, cache):
    return {load_dataset(shop, cache=cache).fingerprint for _ in range(20)}


def test_two_runs_at_once_share_the_cache(shop, cache):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        fingerprints = pool.starmap(read_many, [(shop, cache)] * 2)
    assert fingerprints == [{load_dataset(shop).fingerprint}] * 2
    assert len(entries(cache)) == 1
