"""What befalls a Redis: killed, stopped, flushed, full, frozen, closed to us. All is mended."""

import time

import pytest

from index.errors import StoreFullError, StoreUnreachableError
from tests.support.cluster_maps import hashes, names, numbered, redis_maps, wait_for
from tests.support.redis_server import wait_until

A, B, C = (numbered(number) for number in range(3))  # A is in `server` already
KNOWN = hashes()
FULL = ("--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
TOO_LARGE = numbered(7, count=1_000_000)  # 16 MB
SOON_S = 0.2  # of an answer: long enough for a busy machine, short enough for a test


def test_killed_and_started_empty_it_is_seeded_by_who_followed_it(server, following):
    store = redis_maps(server.url)
    pointer = store.pointer()
    follower = following(redis_maps(server.url), KNOWN)
    wait_for(follower, "following", A.version)
    held = follower.value
    server.kill()
    wait_for(follower, "unreachable", A.version)
    assert "start Redis, or correct its address" in follower.state.reasons[0]
    assert follower.value is held
    server.start()
    wait_for(follower, "following", A.version)
    assert store.pointer() == pointer
    assert store.read(A.version).version == A.version
    store.publish(B)
    wait_for(follower, "following", B.version)


def test_of_two_followers_of_a_flushed_server_either_may_seed_it(server, following):
    store = redis_maps(server.url)
    followers = [following(redis_maps(server.url), KNOWN) for _ in range(2)]
    pointer = store.publish(B)
    for follower in followers:
        wait_for(follower, "following", B.version)
    for _ in range(5):
        server.client.flushall()
        wait_until(lambda: store.pointer() == pointer)
        assert store.read(B.version).version == B.version
        wait_until(lambda: all(server.client.pttl(name) < 0 for name in names(server)))


def test_frozen_it_is_given_up_on_soon_and_followed_again_once_it_thaws(server, following):
    follower = following(redis_maps(server.url, timeout_s=SOON_S), KNOWN)
    wait_for(follower, "following", A.version)
    server.freeze()
    wait_for(follower, "unreachable", A.version)
    with pytest.raises(StoreUnreachableError, match=r"expected an answer within 0\.2 s"):
        redis_maps(server.url, timeout_s=SOON_S).publish(B)
    server.thaw()
    wait_for(follower, "following", A.version)
    redis_maps(server.url).publish(B)
    wait_for(follower, "following", B.version)


@pytest.mark.slow
@pytest.mark.parametrize(("harm", "heal", "for_s"), [("freeze", "thaw", 10), ("kill", "start", 30)])
def test_away_for_long_it_is_followed_again_within_seconds(server, following, harm, heal, for_s):
    follower = following(redis_maps(server.url), KNOWN, poll_s=2.0)
    wait_for(follower, "following", A.version)
    getattr(server, harm)()
    wait_for(follower, "unreachable", A.version)
    time.sleep(for_s)
    assert follower.value.source.version == A.version
    getattr(server, heal)()
    wait_for(follower, "following", A.version)


def test_a_damaged_piece_is_refused_and_followed_once_it_is_mended(server, following):
    store = redis_maps(server.url)
    follower = following(redis_maps(server.url), KNOWN)
    wait_for(follower, "following", A.version)
    server.client.setrange(f"esans:clusters:{A.version}:0", 0, b"\xff")
    late = following(redis_maps(server.url), KNOWN, own=B)
    wait_for(late, "rejected", B.version)
    assert "they were changed: publish the map anew" in late.state.reasons[0]
    assert follower.state.status == "following"  # it has read the map long ago
    store.publish(A)
    wait_for(late, "following", A.version)


def test_a_changed_password_is_told_and_followed_once_it_is_right_again(start_redis, following):
    server = start_redis("--requirepass", "first")
    store = redis_maps(f"unix://:first@{server.socket}")
    store.publish(A)
    follower = following(redis_maps(f"unix://:first@{server.socket}"), KNOWN)
    wait_for(follower, "following", A.version)
    server.kill()
    server.options = ("--requirepass", "second")
    server.start()
    wait_until(lambda: "correct user and password" in "".join(follower.state.reasons))
    assert follower.state.status == "unreachable"
    server.kill()
    server.options = ("--requirepass", "first")
    server.start()
    wait_for(follower, "following", A.version)
    assert store.pointer() == follower.value.pointer


def test_without_room_nothing_is_changed_and_readers_read_on(start_redis, following):
    server = start_redis(*FULL)
    store = redis_maps(server.url)
    pointer = store.publish(A)
    follower = following(redis_maps(server.url), KNOWN)
    wait_for(follower, "following", A.version)
    before = names(server)
    with pytest.raises(StoreFullError, match=r"expected room for a map; raise maxmemory"):
        store.publish(TOO_LARGE)
    assert store.pointer() == pointer
    assert names(server) == before
    assert store.read(A.version).version == A.version
    assert follower.state.status == "following"
    store.publish(B)
    wait_for(follower, "following", B.version)


def test_full_to_the_brim_it_is_still_read_and_pruned(start_redis):
    server = start_redis(*FULL)
    store = redis_maps(server.url)
    for one in (A, B, C):
        store.publish(one)
    server.client.config_set("maxmemory", 1)
    with pytest.raises(StoreFullError, match="python -m index clusters prune"):
        store.roll_back()
    assert store.read(C.version).version == C.version
    assert store.prune(0) == [A.version]
    server.client.config_set("maxmemory", "8mb")
    assert store.roll_back().version == B.version


def test_a_server_without_room_is_seeded_once_it_has_some(start_redis, following):
    server = start_redis(*FULL)
    store = redis_maps(server.url)
    pointer = store.publish(A)
    follower = following(redis_maps(server.url), KNOWN)
    wait_for(follower, "following", A.version)
    server.client.config_set("maxmemory", 1)
    server.client.flushall()
    wait_until(lambda: "expected room for a map" in "".join(follower.state.reasons))
    assert follower.state.status == "empty"
    server.client.config_set("maxmemory", "8mb")
    wait_until(lambda: store.pointer() == pointer)
    wait_for(follower, "following", A.version)


def test_an_announcement_wakes_a_follower_long_before_its_poll(server, following):
    follower = following(redis_maps(server.url), KNOWN, poll_s=3_600.0)
    wait_for(follower, "following", A.version)
    wait_until(lambda: server.client.pubsub_numsub("esans:clusters:announce")[0][1] == 1)
    redis_maps(server.url).publish(B)
    wait_for(follower, "following", B.version)


def test_announcements_are_heard_again_after_the_server_was_away(server):
    store = redis_maps(server.url)
    heard = store.subscribe()
    server.kill()
    assert not heard.wait(0.01)
    server.start()
    wait_until(lambda: not heard.wait(0.01) and server.client.pubsub_channels())
    store.publish(B)
    wait_until(lambda: heard.wait(0.1))
    heard.close()
