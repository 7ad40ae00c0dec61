"""Cluster maps in a real Redis: what lies there, what is damaged, who is let in."""

import json
import re

import pytest
from redis import Redis

from index.cluster_map_registry import open_cluster_maps
from index.denylist import redis_denylist
from index.errors import InvalidClusterMapError, NoClusterMapError, StoreUnreachableError
from tests.conftest import ROOT
from tests.support.cluster_maps import numbered, redis_maps, versions_of
from tests.support.redis_server import free_port, wait_until

A, B, C = (numbered(number) for number in range(3))
LARGE = numbered(5, count=300_000)
PUBLISHES = 1_000


@pytest.fixture
def store(redis):
    return redis_maps(redis.url)


def names(redis):
    return {key.decode() for key in redis.client.scan_iter()}


def test_a_map_lies_under_its_version_and_the_namespace(redis, store):
    store.publish(A)
    prefix = f"esans:clusters:{A.version}"
    assert names(redis) == {
        "esans:clusters:current",
        f"{prefix}:meta",
        *(f"{prefix}:{number}" for number in range(4)),  # one for each small array
    }
    assert redis.client.get(f"{prefix}:0") == A.codes1.astype("<i4").tobytes()
    assert redis.client.get(f"{prefix}:3") == A.id_hashes.astype("<u8").tobytes()
    about = json.loads(redis.client.get(f"{prefix}:meta"))
    assert about["num_chunks"] == 4
    assert about["meta"]["card"]["items"] == len(A)
    assert len(about["sha256"]) == 64


def test_namespaces_do_not_see_each_other(redis, store):
    other = redis_maps(redis.url, "another")
    store.publish(A)
    assert other.pointer() is None
    other.publish(B)
    assert other.prune(0) == []
    assert versions_of(store) == [A.version]


def test_a_database_number_in_the_address_is_used(redis):
    third = redis_maps(f"{redis.url}?db=3")
    third.publish(A)
    assert redis_maps(redis.url).pointer() is None
    client = Redis(unix_socket_path=str(redis.socket), db=3)
    assert client.dbsize() == 6
    client.close()


def test_a_map_whose_keys_are_gone_is_not_rolled_back_to(redis, store):
    store.publish(A)
    before = store.publish(B)
    redis.client.delete(f"esans:clusters:{A.version}:2")
    with pytest.raises(InvalidClusterMapError, match="1 of its 5 keys are missing; publish it"):
        store.roll_back()
    redis.client.delete(f"esans:clusters:{A.version}:meta")
    with pytest.raises(NoClusterMapError, match=f"holds no cluster map '{A.version}'"):
        store.roll_back()
    assert store.pointer() == before


def test_a_map_that_is_not_there_is_told_without_a_look_at_every_key(redis, store):
    store.publish(A)
    redis.client.config_resetstat()
    with pytest.raises(NoClusterMapError, match=r"expired\); `python -m index clusters list`"):
        store.read(B.version)
    assert "cmdstat_scan" not in redis.client.info("commandstats")


def cut_short(piece):
    return piece[:-1]


def change_a_byte(piece):
    return bytes([piece[0] ^ 1]) + piece[1:]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (cut_short, r"chunk 3 has 524,287 bytes, expected 524,288"),
        (change_a_byte, r"the chunks have sha256 .*; they were changed: publish"),
        (None, r"chunk 3 is missing, expected 524,288"),
    ],
)
def test_a_damaged_piece_is_told_and_mended_by_publishing_anew(redis, store, spoil, told):
    store.publish(LARGE)
    key = f"esans:clusters:{LARGE.version}:3"
    piece = redis.client.get(key)
    redis.client.set(key, spoil(piece)) if spoil else redis.client.delete(key)
    with pytest.raises(InvalidClusterMapError, match=told):
        store.read(LARGE.version)
    store.publish(LARGE)
    assert redis.client.get(key) == piece
    assert store.read(LARGE.version).version == LARGE.version


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("sha256", "0" * 64, "the chunks have sha256"),
        ("num_chunks", 3, "tells of 3 chunks, its sizes of 4"),
        ("width", 0, "its description cannot be read"),
        ("width", 2**31, r"tells of 4 chunks, its sizes of 98307"),
        ("num_chunks", 2**16 + 1, "its description cannot be read"),
        ("card", {}, "its description cannot be read"),
    ],
)
def test_a_damaged_description_is_told(redis, store, field, value, told):
    store.publish(A)
    key = f"esans:clusters:{A.version}:meta"
    about = json.loads(redis.client.get(key))
    part = about if field in about else about["meta"]
    part[field] = value
    redis.client.set(key, json.dumps(about))
    with pytest.raises(InvalidClusterMapError, match=told):
        store.read(A.version)


@pytest.mark.parametrize("field", ["items", "level_1_codes"])
def test_a_description_of_absurd_numbers_asks_for_no_memory(redis, store, field):
    store.publish(A)
    key = f"esans:clusters:{A.version}:meta"
    about = json.loads(redis.client.get(key))
    about["meta"]["card"][field] = about["meta"]["width"] = 2**31
    redis.client.set(key, json.dumps(about))
    with pytest.raises(InvalidClusterMapError, match="tells of 4 chunks, its sizes of"):
        store.read(A.version)


def test_a_description_of_another_temperature_is_told(redis, store):
    store.publish(A)
    key = f"esans:clusters:{A.version}:meta"
    about = json.loads(redis.client.get(key))
    about["meta"]["card"]["temperature_share"] = 0.3
    redis.client.set(key, json.dumps(about))
    with pytest.raises(InvalidClusterMapError, match=f"described as version {A.version}"):
        store.read(A.version)


@pytest.mark.parametrize("found", ["", "{", '{"sequence": 0}', "[]"])
def test_a_broken_pointer_is_told_and_mended_by_publishing(redis, store, found):
    store.publish(A)
    redis.client.set("esans:clusters:current", found)
    with pytest.raises(InvalidClusterMapError, match="cannot be read as a pointer; expected"):
        store.pointer()
    assert [one.is_current for one in store.listed()] == [False]
    assert store.publish(B).version == B.version
    assert store.pointer().version == B.version


def test_a_key_that_is_no_text_is_told_by_name(redis, store):
    redis.client.rpush("esans:clusters:current", "a list")
    told = r"WRONGTYPE.* \(the key esans:clusters:current\); expected text under that key; remove"
    for call in (store.pointer, store.pin, lambda: store.publish(A)):
        with pytest.raises(StoreUnreachableError, match=told):
            call()


def test_a_database_that_redis_does_not_have_is_told_by_number(redis):
    with pytest.raises(
        StoreUnreachableError, match="out of range; expected to have database 99; correct"
    ):
        redis_maps(f"{redis.url}?db=99").pointer()


def test_over_1000_publishes_keys_and_memory_stay_bounded(redis):
    store = redis_maps(redis.url, keep_count=4)
    maps = [numbered(number) for number in range(20)]
    used = []
    for step in range(PUBLISHES):
        store.publish(maps[step % len(maps)])
        if step % 100 == 99:
            used.append(redis.client.info("memory")["used_memory"])
            assert redis.client.dbsize() <= 1 + 5 * 5  # the pointer, 4 maps and one more
    assert max(used[1:]) < used[0] + 2**20


def test_maps_go_without_anyone_pruning_them(redis):
    store = redis_maps(redis.url, keep_s=0.05, keep_count=1_000)
    for number in range(50):
        store.publish(numbered(number))
    wait_until(lambda: len(versions_of(store)) == 2)
    wait_until(lambda: redis.client.dbsize() <= 1 + 2 * 5)  # a map's parts go one by one
    assert redis.client.dbsize() == 1 + 2 * 5


@pytest.mark.parametrize("password", ["wr0ng", ""])
def test_a_refused_password_is_told_and_not_written_down(start_redis, password):
    server = start_redis("--requirepass", "correct horse")
    store = redis_maps(f"unix://:{password}@{server.socket}")
    with pytest.raises(StoreUnreachableError, match="correct user and password") as refused:
        store.publish(A)
    assert "horse" not in str(refused.value)
    assert not password or password not in str(refused.value)


def test_the_right_password_over_tcp_is_let_in(start_redis):
    port = free_port()
    start_redis("--requirepass", "correct horse", "--port", str(port))
    url = f"redis://default:correct%20horse@127.0.0.1:{port}/1"
    store = open_cluster_maps(url, None)
    store.publish(A)
    assert store.read(A.version).version == A.version
    assert store.place == f"redis://127.0.0.1:{port}/1, namespace esans"


def test_where_nobody_listens_that_is_told_with_the_place():
    store = redis_maps(f"redis://:secret@127.0.0.1:{free_port()}/2")
    with pytest.raises(
        StoreUnreachableError,
        match=r"127.0.0.1:\d+/2: .*nothing listens there, expected .*; start Redis",
    ) as told:
        store.pointer()
    assert "secret" not in str(told.value)


def test_a_user_with_the_rights_that_the_operations_page_names_can_do_all(start_redis):
    page = (ROOT / "docs" / "operations.md").read_text()
    (named,) = re.findall(r"^`(get [a-z ]+)`", page, re.MULTILINE)
    server = start_redis()
    rights = [*(f"+{one}" for one in named.split()), "+@connection"]
    keys = ["~esans:clusters:*", "~esans:denylist:*"]
    keys += ["resetchannels", "&esans:clusters:announce"]  # Redis 6.2 allows all at first
    server.client.execute_command("ACL", "SETUSER", "shop", "on", ">word", *keys, *rights)
    store = redis_maps(f"unix://shop:word@{server.socket}")
    heard = store.subscribe()
    heard.wait(0.01)
    pointer = store.publish(A)
    assert store.read(pointer.version).version == A.version
    wait_until(lambda: heard.wait(0.1))
    heard.close()
    assert (store.publish(B), store.roll_back(), store.pin())[-1].pinned
    assert (store.unpin().pinned, store.publish(C).version) == (False, C.version)
    assert len(store.listed()) == 3
    assert store.prune(0) == [B.version]
    server.client.flushall()
    assert store.repopulate(A, pointer)
    deny = redis_denylist(f"unix://shop:word@{server.socket}")
    held = deny.replace(["item-1"], 1.0)
    assert deny.change(["item-2"], ["item-1"], 2.0).ids == deny.read().ids == ("item-2",)
    assert not deny.repopulate(held)
    server.client.flushall()
    assert deny.repopulate(held)
