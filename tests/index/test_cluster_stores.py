"""ClusterMapRegistry over a folder and over Redis."""

import numpy as np
import pytest

from index.cluster_map import ARRAYS
from index.cluster_map_stores import open_cluster_maps
from index.errors import ConfigError, InvalidClusterMapError, NoClusterMapError
from tests.support.cluster_maps import (
    break_pointer,
    clear_store,
    is_local,
    list_versions,
    numbered_map,
)
from tests.support.redis_server import wait_until

A, B, C, D = (numbered_map(number) for number in range(4))
KEEP_S, SHORT_S = 3_600.0, 0.3


def test_empty_registry_has_no_pointer_and_no_maps(store):
    assert store.pointer() is None
    assert store.list_maps() == []
    for call in (store.pin, store.unpin):
        with pytest.raises(NoClusterMapError, match="no cluster map is published; publish"):
            call()
    with pytest.raises(NoClusterMapError, match="no previous cluster map"):
        store.roll_back()
    with pytest.raises(NoClusterMapError, match=f"no cluster map '{A.version}'"):
        store.load(A.version)


def test_publish_makes_map_current_and_loadable(store, open_store):
    pointer = store.publish(A)
    assert (pointer.version, pointer.previous, pointer.pinned) == (A.version, None, False)
    assert open_store().pointer() == pointer
    loaded = open_store().load(A.version)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(A, name))
    assert (loaded.version, loaded.made) == (A.version, A.made)
    assert loaded.temperature_share == A.temperature_share


def test_load_returns_map_of_many_chunks(store):
    large = numbered_map(0, count=300_001)
    store.publish(large)
    assert store.load(large.version).version == large.version


def test_publish_advances_pointer_and_keeps_previous(store):
    first, second, third = (store.publish(cluster_map) for cluster_map in (A, B, A))
    assert first.sequence < second.sequence < third.sequence
    assert (second.version, second.previous) == (B.version, A.version)
    assert (third.version, third.previous) == (A.version, B.version)


def test_publish_of_current_map_keeps_previous(store):
    store.publish(A)
    before = store.publish(B)
    again = store.publish(B)
    assert (again.version, again.previous) == (B.version, A.version)
    assert again.sequence > before.sequence


def test_roll_back_twice_returns_to_original(store):
    store.publish(A)
    store.publish(B)
    assert store.roll_back().version == A.version
    assert store.roll_back().version == B.version


def test_roll_back_to_missing_version_changes_nothing(store):
    before = store.publish(A)
    with pytest.raises(NoClusterMapError, match=f"no cluster map.*stored versions: {A.version}"):
        store.roll_back(B.version)
    assert store.pointer() == before


@pytest.mark.parametrize("named", ["nope", "", A.version.upper() + "A", f"{A.version}\n"])
def test_pin_and_roll_back_reject_invalid_version(store, named):
    before = store.publish(A)
    for call in (store.pin, store.roll_back):
        with pytest.raises(
            NoClusterMapError, match=r"expected a cluster map version of 16 hex digits"
        ):
            call(named)
    assert store.pointer() == before
    with pytest.raises(NoClusterMapError, match=r"expected a cluster map version of 16 hex digits"):
        clear_store(store).pin(named)


def test_publish_with_pin_stores_expiring_map(store):
    store.publish(A)
    pinned = store.pin()
    assert (pinned.version, pinned.pinned) == (A.version, True)
    assert store.publish(B) == pinned
    assert store.pointer() == pinned
    kept, waiting = store.list_maps()
    assert (kept.version, kept.expires_in_s) == (A.version, None)
    assert waiting.version == B.version
    assert 0 < waiting.expires_in_s <= KEEP_S


def test_pin_makes_version_current(store):
    store.publish(A)
    store.publish(B)
    assert store.pin(A.version).version == A.version
    assert store.publish(C).version == A.version
    assert store.pin(C.version).version == C.version


def test_publish_of_pinned_map_keeps_pin(store):
    store.publish(A)
    store.pin()
    assert store.publish(A).pinned


def test_broken_pointer_is_repaired_by_explicit_version(store):
    for cluster_map in (A, B):
        store.publish(cluster_map)
    break_pointer(store)
    for call in (store.pin, store.unpin, store.roll_back):
        with pytest.raises(InvalidClusterMapError, match="`current` is not a valid pointer"):
            call()
    assert list_versions(store) == [A.version, B.version]
    assert store.roll_back(A.version).version == A.version
    break_pointer(store)
    assert store.pin(B.version).pinned


def test_roll_back_keeps_pin(store):
    store.publish(A)
    store.publish(B)
    store.pin()
    rolled = store.roll_back()
    assert (rolled.version, rolled.pinned) == (A.version, True)


def test_publish_after_unpin_makes_map_current(store):
    store.publish(A)
    store.pin()
    unpinned = store.unpin()
    assert (unpinned.version, unpinned.pinned) == (A.version, False)
    assert store.unpin() == unpinned
    assert store.publish(B).version == B.version


def test_superseded_map_expires(open_store):
    store = open_store(keep_s=SHORT_S)
    for cluster_map in (A, B, C):
        store.publish(cluster_map)
    wait_until(lambda: list_versions(store) == [B.version, C.version])
    with pytest.raises(NoClusterMapError, match=r"never published, or expired"):
        store.load(A.version)
    assert store.load(B.version).version == B.version
    assert [info.expires_in_s for info in store.list_maps()] == [None, None]


def test_roll_back_to_expiring_version_keeps_it(open_store):
    store = open_store(keep_s=SHORT_S)
    for cluster_map in (A, B):
        store.publish(cluster_map)
    open_store(keep_s=KEEP_S).publish(C)  # A expires in an hour
    assert store.roll_back(A.version).previous == C.version  # B expires soon
    wait_until(lambda: B.version not in list_versions(store))
    assert store.load(A.version).version == A.version
    assert {info.version: info.expires_in_s for info in store.list_maps()} == {
        A.version: None,
        C.version: None,
    }


def test_publish_again_renews_expiry(open_store):
    store = open_store()
    store.publish(A)
    store.pin()
    open_store(keep_s=60.0).publish(B)
    store.publish(B)
    assert store.list_maps()[-1].expires_in_s > 60.0


def test_list_maps_shows_status_and_size(store):
    for cluster_map in (A, B, C):
        store.publish(cluster_map)
    listed = {info.version: info for info in store.list_maps()}
    assert list(listed) == [A.version, B.version, C.version]
    assert [info.is_current for info in listed.values()] == [False, False, True]
    assert [info.is_previous for info in listed.values()] == [False, True, False]
    assert (listed[A.version].items, listed[A.version].level_1_codes) == (200, 6)
    assert listed[A.version].created_at.startswith("20")


def test_prune_keeps_newest_current_and_previous(store):
    for cluster_map in (A, B, C, D):
        store.publish(cluster_map)
    store.roll_back(A.version)
    assert store.prune(1) == [B.version, C.version]
    assert sorted(list_versions(store)) == sorted([A.version, D.version])
    assert store.prune(0) == []


def test_publish_bounds_number_of_maps(open_store):
    store = open_store(keep_count=3)
    for number in range(30):
        store.publish(numbered_map(number))
        assert len(list_versions(store)) <= 4  # the previous pointer may name one more
    assert list_versions(store) == [numbered_map(number).version for number in (27, 28, 29)]


def test_repopulate_restores_map_pointer_and_pin(store, open_store):
    store.publish(A)
    store.publish(B)
    pointer = store.pin()
    store = clear_store(store)
    assert store.repopulate(B, pointer)
    assert store.pointer() == pointer
    assert store.load(B.version).version == B.version
    assert not store.repopulate(B, pointer)


def test_repopulate_skips_newer_store(store):
    old = store.publish(A)
    new = store.publish(B)
    assert not store.repopulate(A, old)
    assert store.pointer() == new


def test_repopulate_advances_older_store(store):
    old = store.publish(A)
    new = store.publish(B)
    store = clear_store(store)
    assert store.repopulate(A, old)
    assert store.repopulate(B, new)
    assert store.pointer() == new
    assert store.list_maps()[-1].is_current


def test_sequence_grows_after_data_loss(store):
    before = store.publish(A)
    after = clear_store(store).publish(B)
    assert after.sequence > before.sequence


def test_sequence_grows_when_clock_goes_back(open_store):
    before = open_store().publish(A)
    after = open_store(now=lambda: 1_000_000.0).publish(B)
    assert after.sequence == before.sequence + 1


def test_open_cluster_maps_selects_redis_or_folder(tmp_path):
    assert is_local(open_cluster_maps(None, tmp_path))
    store = open_cluster_maps("redis://user:secret@h.example:7000/3", tmp_path, "shop")
    assert not is_local(store)
    assert store.location == "redis://h.example:7000/3, namespace shop"


@pytest.mark.parametrize("url", ["http://h", "h:6379", "redis://h:port/0", "redis://[h/0", "unix"])
def test_open_cluster_maps_rejects_invalid_url_unquoted(url, tmp_path):
    with pytest.raises(ConfigError, match=r"expected redis://") as raised:
        open_cluster_maps(url.replace("//", "//user:secret@"), tmp_path)
    assert "secret" not in str(raised.value)


def test_open_cluster_maps_rejects_invalid_namespace(tmp_path):
    with pytest.raises(ConfigError, match=r"found the namespace 'a\*', expected 1 to 64"):
        open_cluster_maps("redis://h", tmp_path, "a*")
