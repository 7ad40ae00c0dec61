"""What every store of cluster maps promises, asked of each."""

import numpy as np
import pytest

from index.cluster_map import ARRAYS
from index.cluster_map_registry import open_cluster_maps
from index.errors import ConfigError, InvalidClusterMapError, NoClusterMapError
from tests.support.cluster_maps import (
    emptied,
    is_local,
    numbered,
    versions_of,
    with_broken_pointer,
)
from tests.support.redis_server import wait_until

A, B, C, D = (numbered(number) for number in range(4))
FOR_GOOD, SOON_S = 3_600.0, 0.3


def test_where_nothing_is_published_there_is_no_pointer_and_no_map(store):
    assert store.pointer() is None
    assert store.listed() == []
    for call in (store.pin, store.unpin):
        with pytest.raises(NoClusterMapError, match="no cluster map is published here; publish"):
            call()
    with pytest.raises(NoClusterMapError, match="no cluster map before the current one"):
        store.roll_back()
    with pytest.raises(NoClusterMapError, match=f"holds no cluster map '{A.version}'"):
        store.read(A.version)


def test_what_is_published_is_current_and_read_back_equal(store, open_store):
    pointer = store.publish(A)
    assert (pointer.version, pointer.previous, pointer.pinned) == (A.version, None, False)
    assert open_store().pointer() == pointer
    found = open_store().read(A.version)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(A, name))
    assert (found.version, found.made) == (A.version, A.made)
    assert found.temperature_share == A.temperature_share


def test_a_map_of_many_pieces_is_read_back_equal(store):
    large = numbered(0, count=300_001)
    store.publish(large)
    assert store.read(large.version).version == large.version


def test_each_publish_moves_the_pointer_on_and_remembers_the_one_before(store):
    first, second, third = (store.publish(one) for one in (A, B, A))
    assert first.sequence < second.sequence < third.sequence
    assert (second.version, second.previous) == (B.version, A.version)
    assert (third.version, third.previous) == (A.version, B.version)


def test_the_current_map_published_again_does_not_become_its_own_predecessor(store):
    store.publish(A)
    before = store.publish(B)
    again = store.publish(B)
    assert (again.version, again.previous) == (B.version, A.version)
    assert again.sequence > before.sequence


def test_rolling_back_goes_back_and_forth(store):
    store.publish(A)
    store.publish(B)
    assert store.roll_back().version == A.version
    assert store.roll_back().version == B.version


def test_rolling_back_to_a_version_that_is_not_there_changes_nothing(store):
    before = store.publish(A)
    with pytest.raises(NoClusterMapError, match=f"holds no cluster map.*holds {A.version}"):
        store.roll_back(B.version)
    assert store.pointer() == before


@pytest.mark.parametrize("named", ["nope", "", A.version.upper() + "A", f"{A.version}\n"])
def test_what_can_be_no_version_is_neither_pinned_nor_rolled_back_to(store, named):
    before = store.publish(A)
    for call in (store.pin, store.roll_back):
        with pytest.raises(NoClusterMapError, match=r"expected the version of .* 16 digits"):
            call(named)
    assert store.pointer() == before
    with pytest.raises(NoClusterMapError, match=r"expected the version of .* 16 digits"):
        emptied(store).pin(named)


def test_a_pin_holds_against_a_publish_which_is_stored_to_expire(store):
    store.publish(A)
    pinned = store.pin()
    assert (pinned.version, pinned.pinned) == (A.version, True)
    assert store.publish(B) == pinned
    assert store.pointer() == pinned
    kept, waiting = store.listed()
    assert (kept.version, kept.expires_in_s) == (A.version, None)
    assert waiting.version == B.version
    assert 0 < waiting.expires_in_s <= FOR_GOOD


def test_pinning_a_version_makes_it_current(store):
    store.publish(A)
    store.publish(B)
    assert store.pin(A.version).version == A.version
    assert store.publish(C).version == A.version
    assert store.pin(C.version).version == C.version


def test_a_pinned_map_published_again_stays_pinned(store):
    store.publish(A)
    store.pin()
    assert store.publish(A).pinned


def test_a_broken_pointer_is_told_and_naming_a_version_mends_it(store):
    for one in (A, B):
        store.publish(one)
    with_broken_pointer(store)
    for call in (store.pin, store.unpin, store.roll_back):
        with pytest.raises(InvalidClusterMapError, match="`current` cannot be read as a pointer"):
            call()
    assert versions_of(store) == [A.version, B.version]
    assert store.roll_back(A.version).version == A.version
    with_broken_pointer(store)
    assert store.pin(B.version).pinned


def test_rolling_back_keeps_the_pin(store):
    store.publish(A)
    store.publish(B)
    store.pin()
    rolled = store.roll_back()
    assert (rolled.version, rolled.pinned) == (A.version, True)


def test_once_unpinned_the_next_publish_is_current(store):
    store.publish(A)
    store.pin()
    unpinned = store.unpin()
    assert (unpinned.version, unpinned.pinned) == (A.version, False)
    assert store.unpin() == unpinned
    assert store.publish(B).version == B.version


def test_what_is_superseded_goes_after_its_time_and_nothing_else_does(open_store):
    store = open_store(keep_s=SOON_S)
    for one in (A, B, C):
        store.publish(one)
    wait_until(lambda: versions_of(store) == [B.version, C.version])
    with pytest.raises(NoClusterMapError, match=r"never published, or expired"):
        store.read(A.version)
    assert store.read(B.version).version == B.version
    assert [one.expires_in_s for one in store.listed()] == [None, None]


def test_a_version_that_was_expiring_stays_once_it_is_rolled_back_to(open_store):
    store = open_store(keep_s=SOON_S)
    for one in (A, B):
        store.publish(one)
    open_store(keep_s=FOR_GOOD).publish(C)  # A is given an hour
    assert store.roll_back(A.version).previous == C.version  # B is given its moment
    wait_until(lambda: B.version not in versions_of(store))
    assert store.read(A.version).version == A.version
    assert {one.version: one.expires_in_s for one in store.listed()} == {
        A.version: None,
        C.version: None,
    }


def test_a_version_published_again_while_it_waits_gets_its_time_anew(open_store):
    store = open_store()
    store.publish(A)
    store.pin()
    open_store(keep_s=60.0).publish(B)
    store.publish(B)
    assert store.listed()[-1].expires_in_s > 60.0


def test_listed_tells_what_is_current_previous_and_how_large(store):
    for one in (A, B, C):
        store.publish(one)
    listed = {one.version: one for one in store.listed()}
    assert list(listed) == [A.version, B.version, C.version]
    assert [one.is_current for one in listed.values()] == [False, False, True]
    assert [one.is_previous for one in listed.values()] == [False, True, False]
    assert (listed[A.version].items, listed[A.version].level_1_codes) == (200, 6)
    assert listed[A.version].created_at.startswith("20")


def test_pruning_keeps_the_newest_the_current_and_the_one_before(store):
    for one in (A, B, C, D):
        store.publish(one)
    store.roll_back(A.version)
    assert store.prune(1) == [B.version, C.version]
    assert sorted(versions_of(store)) == sorted([A.version, D.version])
    assert store.prune(0) == []


def test_no_more_than_the_newest_are_kept_however_many_are_published(open_store):
    store = open_store(keep_count=3)
    for number in range(30):
        store.publish(numbered(number))
        assert len(versions_of(store)) <= 4  # a moment ago the pointer named one more
    assert versions_of(store) == [numbered(number).version for number in (27, 28, 29)]


def test_an_empty_store_is_seeded_with_map_pointer_and_pin_as_they_were(store, open_store):
    store.publish(A)
    store.publish(B)
    pointer = store.pin()
    store = emptied(store)
    assert store.repopulate(B, pointer)
    assert store.pointer() == pointer
    assert store.read(B.version).version == B.version
    assert not store.repopulate(B, pointer)


def test_a_store_that_moved_on_is_not_seeded(store):
    old = store.publish(A)
    new = store.publish(B)
    assert not store.repopulate(A, old)
    assert store.pointer() == new


def test_a_store_put_back_to_an_older_state_is_brought_forward(store):
    old = store.publish(A)
    new = store.publish(B)
    store = emptied(store)
    assert store.repopulate(A, old)
    assert store.repopulate(B, new)
    assert store.pointer() == new
    assert store.listed()[-1].is_current


def test_the_sequence_grows_on_where_the_store_forgot_everything(store):
    before = store.publish(A)
    after = emptied(store).publish(B)
    assert after.sequence > before.sequence


def test_the_sequence_grows_where_the_clock_was_put_back(open_store):
    before = open_store().publish(A)
    after = open_store(now=lambda: 1_000_000.0).publish(B)
    assert after.sequence == before.sequence + 1


def test_an_address_means_redis_and_none_a_folder(tmp_path):
    assert is_local(open_cluster_maps(None, tmp_path))
    store = open_cluster_maps("redis://user:secret@h.example:7000/3", tmp_path, "shop")
    assert not is_local(store)
    assert store.place == "redis://h.example:7000/3, namespace shop"


@pytest.mark.parametrize("url", ["http://h", "h:6379", "redis://h:port/0", "redis://[h/0", "unix"])
def test_an_address_that_is_none_is_refused_without_telling_it(url, tmp_path):
    with pytest.raises(ConfigError, match=r"expected redis://") as refused:
        open_cluster_maps(url.replace("//", "//user:secret@"), tmp_path)
    assert "secret" not in str(refused.value)


def test_a_namespace_that_could_match_other_keys_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"found the namespace 'a\*', expected 1 to 64"):
        open_cluster_maps("redis://h", tmp_path, "a*")
