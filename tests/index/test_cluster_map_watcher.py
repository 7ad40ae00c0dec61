"""What a follower holds, and what it says, over every store."""

import logging

import numpy as np
import pytest
from scipy.stats import chisquare

from index.cluster_map_io import join_matching
from index.cluster_map_watcher import Catalogue
from index.errors import IncompatibleClusterMapError
from tests.support.cluster_maps import (
    COUNT,
    Counted,
    emptied,
    hashes,
    local_maps,
    numbered,
    of_known,
)
from tests.support.redis_server import wait_until

A, B, C = (numbered(number) for number in range(3))
KNOWN = hashes()
ABROAD = numbered(9, first=10**6)


def wait_for(follower, version):
    wait_until(lambda: follower.value and follower.value.source.version == version)
    wait_until(lambda: follower.state.status == "following")
    return follower.value


def test_until_something_is_published_our_own_map_is_held(store, following):
    own = numbered(0)
    follower = following(store, own.id_hashes, own=own)
    assert follower.value.clusters is follower.value.source is own
    wait_until(lambda: follower.state.reasons == (f"nothing is published in {store.place}",))
    state = follower.state
    assert (state.status, follower.value.pointer) == ("empty", None)
    assert (state.changes, state.errors) == (0, 0)
    wait_until(lambda: "nearness" in vars(own))  # prepared in the thread


def test_without_a_map_of_our_own_none_is_held_until_one_is_published(store, following):
    follower = following(store, KNOWN)
    assert follower.value is None
    pointer = store.publish(B)
    assert wait_for(follower, B.version).pointer == pointer


def test_our_own_map_is_joined_with_the_rows_that_are_known(store, following):
    known = KNOWN[::-1].copy()
    follower = following(store, known, own=A)
    assert follower.value.clusters.id_hashes is known
    np.testing.assert_array_equal(follower.value.clusters.codes1, A.codes1[::-1])


def test_what_is_published_pinned_and_rolled_back_to_is_held_prepared(store, following):
    told = []
    follower = following(store, KNOWN, own=A, on_change=told.append)
    store.publish(B)
    assert wait_for(follower, B.version).clusters.id_hashes is KNOWN
    assert "nearness" in vars(follower.value.clusters)
    store.publish(C)
    wait_for(follower, C.version)
    rolled = store.roll_back()
    wait_for(follower, B.version)
    assert [one.source.version for one in told] == [B.version, C.version, B.version]
    assert follower.value.pointer == rolled
    assert follower.state.changes == 3


def test_a_pin_on_what_is_held_is_told_without_a_swap(store, following):
    follower = following(store, KNOWN)
    store.publish(B)
    clusters = wait_for(follower, B.version).clusters
    pinned = store.pin()
    wait_until(lambda: follower.value.pointer == pinned)
    assert follower.value.clusters is clusters
    assert follower.state.changes == 1


def test_stopped_it_says_so_and_holds_on(store, following):
    store.publish(B)
    follower = following(store, KNOWN)
    wait_for(follower, B.version)
    follower.stop()
    assert follower.state.status == "stopped"
    assert follower.value.source.version == B.version


def catalogues():
    rng = np.random.default_rng(0)
    return {
        "grown": np.concatenate([KNOWN, hashes(3 * COUNT, first=COUNT)]),
        "shrunk": KNOWN[::3].copy(),
        "shuffled": rng.permutation(KNOWN),
        "renewed by a twentieth": hashes(first=COUNT // 20),
    }


@pytest.mark.parametrize("name", catalogues())
def test_a_map_is_joined_with_a_catalogue_that_is(name, store, following):
    known = catalogues()[name]
    store.publish(A)
    clusters = wait_for(following(store, known), A.version).clusters
    codes = dict(zip(A.id_hashes.tolist(), A.codes1.tolist(), strict=True))
    expected = [codes.get(one, len(A.centroids)) for one in known.tolist()]
    assert clusters.codes1.tolist() == expected


@pytest.mark.parametrize("shift", [COUNT // 20 + 1, COUNT])
def test_a_map_of_another_catalogue_is_refused_and_the_old_one_kept(shift, store, following):
    follower = following(store, KNOWN)
    store.publish(A)
    held = wait_for(follower, A.version)
    foreign = numbered(9, first=shift)
    store.publish(foreign)
    wait_until(lambda: follower.state.status == "rejected")
    assert follower.value is held
    shared = COUNT - shift
    assert f"{foreign.version}: shares {shared} items" in follower.state.reasons[0]
    store.publish(B)
    wait_for(follower, B.version)


def test_a_refusal_is_counted_and_logged_once(store, following, caplog):
    caplog.set_level(logging.INFO, logger="clusters")
    store.publish(ABROAD)
    counted = Counted(store)
    follower = following(counted, KNOWN, own=A, poll_s=0.02)
    wait_until(lambda: counted.polls > 5)
    assert follower.state.errors == 1
    assert [line for line in caplog.messages if "rejected" in line] == [
        f"cluster maps: refused; {follower.state.reasons[0]}"
    ]


def test_two_items_of_one_hash_are_refused(store, following):
    twins = KNOWN.copy()
    twins[1] = twins[0]
    follower = following(store, A.id_hashes, own=A)
    store.publish(of_known(B, twins))
    wait_until(lambda: follower.state.status == "rejected")
    assert "rows 0 and 1 share an id hash" in follower.state.reasons[0]
    assert follower.value.clusters is A


def test_overlap_is_measured_against_the_smaller_of_the_two():
    with pytest.raises(IncompatibleClusterMapError, match=r"shares 9 items .* expected 95% of 10"):
        join_matching(A, np.concatenate([KNOWN[:9], hashes(1, first=10**6)]))
    assert len(join_matching(A, hashes(10 * COUNT))) == 10 * COUNT


def test_another_bundle_gets_the_published_map_joined_with_its_items(store, following):
    store.publish(A)
    follower = following(store, KNOWN)
    wait_for(follower, A.version)
    other = KNOWN[::-1].copy()
    follower.join_with(Catalogue(other, None))
    wait_until(lambda: follower.value.clusters.id_hashes is other)
    np.testing.assert_array_equal(follower.value.clusters.codes1, A.codes1[::-1])
    assert follower.value.pointer == store.pointer()


def test_another_bundle_of_other_items_is_served_from_its_own_map(store, following):
    store.publish(A)
    follower = following(store, KNOWN)
    wait_for(follower, A.version)
    follower.join_with(Catalogue(ABROAD.id_hashes, ABROAD))
    wait_until(lambda: follower.state.status == "rejected")
    assert follower.value.clusters is ABROAD
    assert follower.value.pointer is None
    follower.join_with(Catalogue(KNOWN, None))
    wait_for(follower, A.version)


def test_an_emptied_store_is_seeded_with_what_is_held(store, following):
    follower = following(store, KNOWN, own=A)
    store.publish(B)
    wait_for(follower, B.version)
    pinned = store.pin()
    wait_until(lambda: follower.value.pointer == pinned)
    emptied(store)
    wait_until(lambda: store.pointer() == pinned)
    assert store.read(B.version).version == B.version
    assert follower.state.changes == 1


def test_an_emptied_store_is_not_seeded_with_our_own_map(store, following):
    counted = Counted(store)
    following(counted, A.id_hashes, own=A, poll_s=0.02)
    wait_until(lambda: counted.polls > 5)
    assert store.pointer() is None


def test_a_pointer_that_went_back_is_not_followed_but_brought_forward(store, following):
    old = store.publish(A)
    follower = following(store, KNOWN)
    new = store.publish(B)
    wait_for(follower, B.version)
    emptied(store).repopulate(A, old)
    wait_until(lambda: store.pointer() == new)
    assert follower.value.source.version == B.version


def test_a_callback_that_fails_is_told_and_later_maps_are_held_all_the_same(
    store, following, caplog
):
    def fail(_):
        raise RuntimeError("planted")

    store.publish(A)
    follower = following(store, KNOWN, on_change=fail)
    wait_until(lambda: follower.state.reasons == ("RuntimeError: planted",))
    assert follower.state.status == "rejected"
    store.publish(B)
    wait_until(lambda: follower.value.source.version == B.version)
    errors = follower.state.errors
    wait_until(lambda: follower.state.errors > errors + 2)
    assert follower.state.changes == 2
    assert caplog.messages == ["cluster maps: refused; RuntimeError: planted"]
    assert caplog.text.count("Traceback") == 1


def test_a_callback_that_failed_is_called_again_until_it_has_gone_well_once(store, following):
    told = []

    def fail_twice(held):
        told.append(held.source.version)
        if len(told) < 3:
            raise RuntimeError("planted")

    store.publish(A)
    counted = Counted(store)
    follower = following(counted, KNOWN, on_change=fail_twice, poll_s=0.02)
    wait_for(follower, A.version)
    polls = counted.polls
    wait_until(lambda: counted.polls > polls + 3)
    assert told == [A.version] * 3
    assert follower.state.changes == 1
    store.publish(B)
    wait_for(follower, B.version)
    assert told[3:] == [B.version]


class Strange(Counted):
    """A store that fails in a way nobody has thought of."""

    def pointer(self):
        super().pointer()
        raise ZeroDivisionError("planted")


def test_what_nobody_has_thought_of_is_logged_in_full_once(store, following, caplog):
    strange = Strange(store)
    follower = following(strange, A.id_hashes, own=A, poll_s=0.02)
    wait_until(lambda: follower.state.errors > 3)
    assert follower.state.reasons == ("ZeroDivisionError: planted",)
    assert caplog.messages == ["cluster maps: refused; ZeroDivisionError: planted"]
    assert caplog.text.count("Traceback") == 1


def drawn(clusters, rng):
    positives = np.zeros(20_000, dtype=np.int32)
    return np.bincount(clusters.easy(positives, 1, rng).ravel(), minlength=len(clusters))


def fits(counts, found):
    told = found.easy_chance(np.zeros(1, np.int32), np.arange(len(found), dtype=np.int32))[0]
    if counts[told == 0].any():
        return False
    expected = told[told > 0] * counts.sum() / told.sum()
    return chisquare(counts[told > 0], expected).pvalue > 1e-3


def test_draws_follow_the_old_map_before_the_swap_and_the_new_one_after_it(store, following):
    old, new = (numbered(number) for number in (11, 12))
    rng = np.random.default_rng(0)
    store.publish(old)
    follower = following(store, KNOWN)
    before = drawn(wait_for(follower, old.version).clusters, rng)
    store.publish(new)
    after = drawn(wait_for(follower, new.version).clusters, rng)
    assert fits(before, old)
    assert fits(after, new)
    assert not fits(before, new)
    assert not fits(after, old)


def test_a_store_of_files_needs_no_right_to_write_for_following(tmp_path, following):
    local_maps(tmp_path).publish(A)
    listing = sorted(tmp_path.rglob("*"))
    wait_for(following(local_maps(tmp_path), KNOWN), A.version)
    assert sorted(tmp_path.rglob("*")) == listing


class Deaf:
    """Announcements that break their promise never to raise."""

    def wait(self, timeout_s):
        raise RuntimeError("planted")

    def close(self):
        """Nothing is open."""


class WithDeaf(Counted):
    def subscribe(self):
        return Deaf()


def test_a_following_that_ends_by_an_error_says_so(store, following, caplog):
    store.publish(A)
    follower = following(WithDeaf(store), KNOWN)
    wait_until(lambda: follower.state.status == "stopped")
    assert "RuntimeError: planted; expected" in follower.state.reasons[0]
    assert follower.value.source.version == A.version
    assert f"cluster maps: stopped; {follower.state.reasons[0]}" in caplog.messages
