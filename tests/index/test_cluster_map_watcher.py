"""ClusterMapWatcher over a folder and over Redis."""

import logging

import numpy as np
import pytest
from scipy.stats import chisquare

from index import cluster_map_watcher
from index.cluster_map_io import join_matching
from index.cluster_map_watcher import Catalogue
from index.errors import IncompatibleClusterMapError
from tests.support.cluster_maps import (
    COUNT,
    CountingRegistry,
    clear_store,
    hashes,
    local_maps,
    numbered_map,
    with_id_hashes,
)
from tests.support.redis_server import wait_until

A, B, C = (numbered_map(number) for number in range(3))
KNOWN = hashes()
ABROAD = numbered_map(9, first=10**6)


def wait_for(watcher, version):
    wait_until(lambda: watcher.value and watcher.value.source.version == version)
    wait_until(lambda: watcher.state.status == "following")
    return watcher.value


def test_watcher_uses_fallback_map_until_publish(store, following):
    own = numbered_map(0)
    watcher = following(store, own.id_hashes, own=own)
    assert watcher.value.clusters is watcher.value.source is own
    wait_until(
        lambda: watcher.state.reasons == (f"no cluster map is published in {store.location}",)
    )
    state = watcher.state
    assert (state.status, watcher.value.pointer) == ("empty", None)
    assert (state.changes, state.errors) == (0, 0)
    wait_until(lambda: "proposal" in vars(own))  # warmed up in the thread


def test_watcher_without_fallback_has_no_map_until_publish(store, following):
    watcher = following(store, KNOWN)
    assert watcher.value is None
    pointer = store.publish(B)
    assert wait_for(watcher, B.version).pointer == pointer


def test_watcher_joins_fallback_map_with_catalogue(store, following):
    known = KNOWN[::-1].copy()
    watcher = following(store, known, own=A)
    assert watcher.value.clusters.id_hashes is known
    np.testing.assert_array_equal(watcher.value.clusters.codes1, A.codes1[::-1])


def test_watcher_swaps_to_published_and_rolled_back_maps(store, following):
    swaps = []
    watcher = following(store, KNOWN, own=A, on_change=swaps.append)
    store.publish(B)
    assert wait_for(watcher, B.version).clusters.id_hashes is KNOWN
    assert "proposal" in vars(watcher.value.clusters)
    store.publish(C)
    wait_for(watcher, C.version)
    rolled = store.roll_back()
    wait_for(watcher, B.version)
    assert [active.source.version for active in swaps] == [B.version, C.version, B.version]
    assert watcher.value.pointer == rolled
    assert watcher.state.changes == 3


def test_watcher_on_pin_updates_pointer_without_swap(store, following):
    watcher = following(store, KNOWN)
    store.publish(B)
    clusters = wait_for(watcher, B.version).clusters
    pinned = store.pin()
    wait_until(lambda: watcher.value.pointer == pinned)
    assert watcher.value.clusters is clusters
    assert watcher.state.changes == 1


def test_watcher_after_stop_keeps_map(store, following):
    store.publish(B)
    watcher = following(store, KNOWN)
    wait_for(watcher, B.version)
    watcher.stop()
    assert watcher.state.status == "stopped"
    assert watcher.value.source.version == B.version


def catalogues():
    rng = np.random.default_rng(0)
    return {
        "grown": np.concatenate([KNOWN, hashes(3 * COUNT, first=COUNT)]),
        "shrunk": KNOWN[::3].copy(),
        "shuffled": rng.permutation(KNOWN),
        "renewed by a twentieth": hashes(first=COUNT // 20),
    }


@pytest.mark.parametrize("name", catalogues())
def test_watcher_joins_map_with_changed_catalogue(name, store, following):
    known = catalogues()[name]
    store.publish(A)
    clusters = wait_for(following(store, known), A.version).clusters
    codes = dict(zip(A.id_hashes.tolist(), A.codes1.tolist(), strict=True))
    expected = [codes.get(id_hash, len(A.centroids)) for id_hash in known.tolist()]
    assert clusters.codes1.tolist() == expected


@pytest.mark.parametrize("shift", [COUNT // 20 + 1, COUNT])
def test_watcher_rejects_map_of_another_catalogue(shift, store, following):
    watcher = following(store, KNOWN)
    store.publish(A)
    held = wait_for(watcher, A.version)
    foreign = numbered_map(9, first=shift)
    store.publish(foreign)
    wait_until(lambda: watcher.state.status == "rejected")
    assert watcher.value is held
    shared = COUNT - shift
    assert f"{foreign.version}: shares {shared} items" in watcher.state.reasons[0]
    store.publish(B)
    wait_for(watcher, B.version)


def test_watcher_logs_rejection_once(store, following, caplog):
    caplog.set_level(logging.INFO, logger="clusters")
    store.publish(ABROAD)
    counted = CountingRegistry(store)
    watcher = following(counted, KNOWN, own=A, poll_s=0.02)
    wait_until(lambda: counted.polls > 5)
    assert watcher.state.errors == 1
    assert [line for line in caplog.messages if "rejected" in line] == [
        f"cluster maps: rejected; {watcher.state.reasons[0]}"
    ]


def test_watcher_rejects_duplicate_hashes(store, following):
    duplicated = KNOWN.copy()
    duplicated[1] = duplicated[0]
    watcher = following(store, A.id_hashes, own=A)
    store.publish(with_id_hashes(B, duplicated))
    wait_until(lambda: watcher.state.status == "rejected")
    assert "rows 0 and 1 share an id hash" in watcher.state.reasons[0]
    assert watcher.value.clusters is A


def test_join_matching_measures_overlap_by_smaller_count():
    with pytest.raises(IncompatibleClusterMapError, match=r"shares 9 items .* expected 95% of 10"):
        join_matching(A, np.concatenate([KNOWN[:9], hashes(1, first=10**6)]))
    assert len(join_matching(A, hashes(10 * COUNT))) == 10 * COUNT


def test_set_catalogue_joins_published_map(store, following):
    store.publish(A)
    watcher = following(store, KNOWN)
    wait_for(watcher, A.version)
    other = KNOWN[::-1].copy()
    watcher.set_catalogue(Catalogue(other, None))
    wait_until(lambda: watcher.value.clusters.id_hashes is other)
    np.testing.assert_array_equal(watcher.value.clusters.codes1, A.codes1[::-1])
    assert watcher.value.pointer == store.pointer()


def test_set_catalogue_without_overlap_uses_fallback_map(store, following):
    store.publish(A)
    watcher = following(store, KNOWN)
    wait_for(watcher, A.version)
    watcher.set_catalogue(Catalogue(ABROAD.id_hashes, ABROAD))
    wait_until(lambda: watcher.state.status == "rejected")
    assert watcher.value.clusters is ABROAD
    assert watcher.value.pointer is None
    watcher.set_catalogue(Catalogue(KNOWN, None))
    wait_for(watcher, A.version)


def test_failed_join_with_another_catalogue_is_repeated(store, following, monkeypatch):
    def join_later(*arguments):
        monkeypatch.setattr(cluster_map_watcher, "join", join)
        raise MemoryError("no room for a moment")

    own, join = numbered_map(0), cluster_map_watcher.join
    watcher = following(store, own.id_hashes, own)
    monkeypatch.setattr(cluster_map_watcher, "join", join_later)
    watcher.set_catalogue(Catalogue(own.id_hashes[::-1].copy(), own))
    wait_until(lambda: watcher.value.catalogue.id_hashes[0] == own.id_hashes[-1])


def test_watcher_repopulates_emptied_store(store, following):
    watcher = following(store, KNOWN, own=A)
    store.publish(B)
    wait_for(watcher, B.version)
    pinned = store.pin()
    wait_until(lambda: watcher.value.pointer == pinned)
    clear_store(store)
    wait_until(lambda: store.pointer() == pinned)
    assert store.load(B.version).version == B.version
    assert watcher.state.changes == 1


def test_watcher_does_not_publish_fallback_map(store, following):
    counted = CountingRegistry(store)
    following(counted, A.id_hashes, own=A, poll_s=0.02)
    wait_until(lambda: counted.polls > 5)
    assert store.pointer() is None


def test_watcher_restores_pointer_that_went_back(store, following):
    old = store.publish(A)
    watcher = following(store, KNOWN)
    new = store.publish(B)
    wait_for(watcher, B.version)
    clear_store(store).repopulate(A, old)
    wait_until(lambda: store.pointer() == new)
    assert watcher.value.source.version == B.version


def test_watcher_with_failing_callback_still_swaps(store, following, caplog):
    def fail(_):
        raise RuntimeError("planted")

    store.publish(A)
    watcher = following(store, KNOWN, on_change=fail)
    wait_until(lambda: watcher.state.reasons == ("RuntimeError: planted",))
    assert watcher.state.status == "rejected"
    store.publish(B)
    wait_until(lambda: watcher.value.source.version == B.version)
    errors = watcher.state.errors
    wait_until(lambda: watcher.state.errors > errors + 2)
    assert watcher.state.changes == 2
    assert caplog.messages == ["cluster maps: rejected; RuntimeError: planted"]
    assert caplog.text.count("Traceback") == 1


def test_watcher_retries_callback_until_success(store, following):
    delivered = []

    def fail_twice(active):
        delivered.append(active.source.version)
        if len(delivered) < 3:
            raise RuntimeError("planted")

    store.publish(A)
    counted = CountingRegistry(store)
    watcher = following(counted, KNOWN, on_change=fail_twice, poll_s=0.02)
    wait_for(watcher, A.version)
    polls = counted.polls
    wait_until(lambda: counted.polls > polls + 3)
    assert delivered == [A.version] * 3
    assert watcher.state.changes == 1
    store.publish(B)
    wait_for(watcher, B.version)
    assert delivered[3:] == [B.version]


class FailingRegistry(CountingRegistry):
    """Registry that raises an unexpected error."""

    def pointer(self):
        super().pointer()
        raise ZeroDivisionError("planted")


def test_watcher_logs_unexpected_error_once(store, following, caplog):
    registry = FailingRegistry(store)
    watcher = following(registry, A.id_hashes, own=A, poll_s=0.02)
    wait_until(lambda: watcher.state.errors > 3)
    assert watcher.state.reasons == ("ZeroDivisionError: planted",)
    assert caplog.messages == ["cluster maps: rejected; ZeroDivisionError: planted"]
    assert caplog.text.count("Traceback") == 1


def count_samples(clusters, rng):
    positives = np.zeros(20_000, dtype=np.int32)
    return np.bincount(clusters.sample_easy(positives, 1, rng).ravel(), minlength=len(clusters))


def is_consistent(counts, clusters):
    positive, rows = np.zeros(1, np.int32), np.arange(len(clusters), dtype=np.int32)
    probabilities = clusters.easy_probability(positive, rows)[0]
    if counts[probabilities == 0].any():
        return False
    expected = probabilities[probabilities > 0] * counts.sum() / probabilities.sum()
    return chisquare(counts[probabilities > 0], expected).pvalue > 1e-3


def test_samples_before_and_after_swap_match_their_map(store, following):
    old, new = (numbered_map(number) for number in (11, 12))
    rng = np.random.default_rng(0)
    store.publish(old)
    watcher = following(store, KNOWN)
    before = count_samples(wait_for(watcher, old.version).clusters, rng)
    store.publish(new)
    after = count_samples(wait_for(watcher, new.version).clusters, rng)
    assert is_consistent(before, old)
    assert is_consistent(after, new)
    assert not is_consistent(before, new)
    assert not is_consistent(after, old)


def test_watcher_writes_nothing_to_folder(tmp_path, following):
    local_maps(tmp_path).publish(A)
    listing = sorted(tmp_path.rglob("*"))
    wait_for(following(local_maps(tmp_path), KNOWN), A.version)
    assert sorted(tmp_path.rglob("*")) == listing


class BrokenNotifications:
    """Notifications that raise, which the protocol forbids."""

    def wait(self, timeout_s):
        raise RuntimeError("planted")

    def close(self):
        """Nothing to close."""


class RegistryWithBrokenNotifications(CountingRegistry):
    def subscribe(self):
        return BrokenNotifications()


def test_watcher_with_broken_notifications_polls_on(store, following, caplog):
    store.publish(A)
    watcher = following(RegistryWithBrokenNotifications(store), KNOWN)
    wait_for(watcher, A.version)
    wait_until(lambda: "cluster maps: polling failed; it continues" in caplog.messages)
    store.publish(B)
    wait_for(watcher, B.version)
    assert watcher.state.status == "following"
    assert caplog.messages.count("cluster maps: polling failed; it continues") == 1
