"""Cluster maps in a real Redis: keys, damaged data, memory, authentication."""

import json
import re

import pytest
from redis import Redis

from index.cluster_map_stores import open_cluster_maps
from index.denylist import redis_denylist
from index.errors import InvalidClusterMapError, NoClusterMapError, StoreUnreachableError
from tests.conftest import ROOT
from tests.support.cluster_maps import list_versions, numbered_map, redis_maps
from tests.support.redis_server import free_port, wait_until

A, B, C = (numbered_map(number) for number in range(3))
LARGE = numbered_map(5, count=300_000)


@pytest.fixture
def store(redis):
    return redis_maps(redis.url)


def names(redis):
    return {key.decode() for key in redis.client.scan_iter()}


def test_publish_writes_keys_under_version_and_namespace(redis, store):
    store.publish(A)
    prefix = f"esans:clusters:{A.version}"
    assert names(redis) == {
        "esans:clusters:current",
        f"{prefix}:meta",
        *(f"{prefix}:{number}" for number in range(4)),  # one per array
    }
    assert redis.client.get(f"{prefix}:0") == A.codes1.astype("<i4").tobytes()
    assert redis.client.get(f"{prefix}:3") == A.id_hashes.astype("<u8").tobytes()
    header = json.loads(redis.client.get(f"{prefix}:meta"))
    assert header["num_chunks"] == 4
    assert header["meta"]["card"]["items"] == len(A)
    assert len(header["sha256"]) == 64


def test_namespaces_are_isolated(redis, store):
    other = redis_maps(redis.url, "another")
    store.publish(A)
    assert other.pointer() is None
    other.publish(B)
    assert other.prune(0) == []
    assert list_versions(store) == [A.version]


def test_url_selects_database(redis):
    third = redis_maps(f"{redis.url}?db=3")
    third.publish(A)
    assert redis_maps(redis.url).pointer() is None
    client = Redis(unix_socket_path=str(redis.socket), db=3)
    assert client.dbsize() == 6
    client.close()


def test_roll_back_to_map_with_missing_keys_fails(redis, store):
    store.publish(A)
    before = store.publish(B)
    redis.client.delete(f"esans:clusters:{A.version}:2")
    with pytest.raises(InvalidClusterMapError, match="1 of 5 keys are missing; publish the"):
        store.roll_back()
    redis.client.delete(f"esans:clusters:{A.version}:meta")
    with pytest.raises(NoClusterMapError, match=f"no cluster map '{A.version}'"):
        store.roll_back()
    assert store.pointer() == before


def test_load_of_missing_map_does_not_scan(redis, store):
    store.publish(A)
    redis.client.config_resetstat()
    with pytest.raises(NoClusterMapError, match=r"expired\); `python -m index clusters list`"):
        store.load(B.version)
    assert "cmdstat_scan" not in redis.client.info("commandstats")


def truncate(chunk):
    return chunk[:-1]


def flip_bit(chunk):
    return bytes([chunk[0] ^ 1]) + chunk[1:]


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (truncate, r"chunk 3 has 524,287 bytes, expected 524,288"),
        (flip_bit, r"the chunks have sha256 .*, expected .*; publish"),
        (None, r"chunk 3 is missing, expected 524,288"),
    ],
)
def test_damaged_chunk_is_repaired_by_publish(redis, store, corrupt, message):
    store.publish(LARGE)
    key = f"esans:clusters:{LARGE.version}:3"
    chunk = redis.client.get(key)
    redis.client.set(key, corrupt(chunk)) if corrupt else redis.client.delete(key)
    with pytest.raises(InvalidClusterMapError, match=message):
        store.load(LARGE.version)
    store.publish(LARGE)
    assert redis.client.get(key) == chunk
    assert store.load(LARGE.version).version == LARGE.version


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sha256", "0" * 64, "the chunks have sha256"),
        ("num_chunks", 3, "has 3 chunks, expected 4"),
        ("width", 0, "its metadata is invalid"),
        ("width", 2**31, "has 4 chunks, expected 98307"),
        ("num_chunks", 2**16 + 1, "its metadata is invalid"),
        ("card", {}, "its metadata is invalid"),
    ],
)
def test_load_rejects_damaged_metadata(redis, store, field, value, message):
    store.publish(A)
    key = f"esans:clusters:{A.version}:meta"
    header = json.loads(redis.client.get(key))
    part = header if field in header else header["meta"]
    part[field] = value
    redis.client.set(key, json.dumps(header))
    with pytest.raises(InvalidClusterMapError, match=message):
        store.load(A.version)


@pytest.mark.parametrize("field", ["items", "level_1_codes"])
def test_load_rejects_huge_sizes_without_allocating(redis, store, field):
    store.publish(A)
    key = f"esans:clusters:{A.version}:meta"
    header = json.loads(redis.client.get(key))
    header["meta"]["card"][field] = header["meta"]["width"] = 2**31
    redis.client.set(key, json.dumps(header))
    with pytest.raises(InvalidClusterMapError, match="has 4 chunks, expected"):
        store.load(A.version)


def test_load_rejects_metadata_of_other_temperature(redis, store):
    store.publish(A)
    key = f"esans:clusters:{A.version}:meta"
    header = json.loads(redis.client.get(key))
    header["meta"]["card"]["temperature_share"] = 0.3
    redis.client.set(key, json.dumps(header))
    with pytest.raises(InvalidClusterMapError, match=f"expected version {A.version}"):
        store.load(A.version)


@pytest.mark.parametrize("content", ["", "{", '{"sequence": 0}', "[]"])
def test_broken_pointer_is_repaired_by_publish(redis, store, content):
    store.publish(A)
    redis.client.set("esans:clusters:current", content)
    with pytest.raises(InvalidClusterMapError, match="is not a valid pointer, expected"):
        store.pointer()
    assert [info.is_current for info in store.list_maps()] == [False]
    assert store.publish(B).version == B.version
    assert store.pointer().version == B.version


def test_key_of_wrong_type_is_named(redis, store):
    redis.client.rpush("esans:clusters:current", "a list")
    message = (
        r"WRONGTYPE.* \(the key esans:clusters:current\); expected a string at that key; remove"
    )
    for call in (store.pointer, store.pin, lambda: store.publish(A)):
        with pytest.raises(StoreUnreachableError, match=message):
            call()


def test_missing_database_is_named(redis):
    with pytest.raises(
        StoreUnreachableError, match="out of range; expected database 99 to exist; correct"
    ):
        redis_maps(f"{redis.url}?db=99").pointer()


@pytest.mark.parametrize("publishes", [200, pytest.param(1_000, marks=pytest.mark.slow)])
def test_keys_and_memory_stay_bounded_over_many_publishes(redis, publishes):
    store = redis_maps(redis.url, keep_count=4)
    maps = [numbered_map(number) for number in range(20)]
    used = []
    for step in range(publishes):
        store.publish(maps[step % len(maps)])
        if step % 100 == 99:
            used.append(redis.client.info("memory")["used_memory"])
            assert redis.client.dbsize() <= 1 + 5 * 5  # the pointer, 4 maps and the previous one
    assert max(used[1:]) < used[0] + 2**20


def test_superseded_maps_expire_without_prune(redis):
    store = redis_maps(redis.url, keep_s=0.05, keep_count=1_000)
    for number in range(50):
        store.publish(numbered_map(number))
    wait_until(lambda: len(list_versions(store)) == 2)
    wait_until(lambda: redis.client.dbsize() <= 1 + 2 * 5)  # the keys of a map expire one by one
    assert redis.client.dbsize() == 1 + 2 * 5


@pytest.mark.parametrize("password", ["wr0ng", ""])
def test_wrong_password_is_reported_and_not_quoted(start_redis, password):
    server = start_redis("--requirepass", "correct horse")
    store = redis_maps(f"unix://:{password}@{server.socket}")
    with pytest.raises(StoreUnreachableError, match="correct user and password") as raised:
        store.publish(A)
    assert "horse" not in str(raised.value)
    assert not password or password not in str(raised.value)


def test_correct_password_over_tcp_is_accepted(start_redis):
    port = free_port()
    start_redis("--requirepass", "correct horse", "--port", str(port))
    url = f"redis://default:correct%20horse@127.0.0.1:{port}/1"
    store = open_cluster_maps(url, None)
    store.publish(A)
    assert store.load(A.version).version == A.version
    assert store.location == f"redis://127.0.0.1:{port}/1, namespace esans"


def test_connection_refused_names_location():
    store = redis_maps(f"redis://:secret@127.0.0.1:{free_port()}/2")
    with pytest.raises(
        StoreUnreachableError, match=r"127.0.0.1:\d+/2: .*[Rr]efused.*; expected .*; start Redis"
    ) as raised:
        store.pointer()
    assert "secret" not in str(raised.value)


def test_documented_acl_allows_all_operations(start_redis):
    page = (ROOT / "docs" / "operations.md").read_text()
    (commands,) = re.findall(r"`(get [a-z\s]+)`", page)
    server = start_redis()
    rights = [*(f"+{command}" for command in commands.split()), "+@connection"]
    keys = ["~esans:clusters:*", "~esans:denylist:*"]
    keys += [
        "resetchannels",
        "&esans:clusters:announce",
    ]  # Redis 6.2 allows all channels by default
    server.client.execute_command("ACL", "SETUSER", "shop", "on", ">word", *keys, *rights)
    store = redis_maps(f"unix://shop:word@{server.socket}")
    notifications = store.subscribe()
    notifications.wait(0.01)
    pointer = store.publish(A)
    assert store.load(pointer.version).version == A.version
    wait_until(lambda: notifications.wait(0.1))
    notifications.close()
    assert (store.publish(B), store.roll_back(), store.pin())[-1].pinned
    assert (store.unpin().pinned, store.publish(C).version) == (False, C.version)
    assert len(store.list_maps()) == 3
    assert store.prune(0) == [B.version]
    server.client.flushall()
    assert store.repopulate(A, pointer)
    denylist = redis_denylist(f"unix://shop:word@{server.socket}")
    first = denylist.replace(["item-1"], 1.0)
    assert denylist.update(["item-2"], ["item-1"], 2.0).ids == denylist.load().ids == ("item-2",)
    assert not denylist.repopulate(first)
    server.client.flushall()
    assert denylist.repopulate(first)
