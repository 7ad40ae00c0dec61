"""What every pointer and every blob store promises, asked of a folder and of Redis."""

import threading

import pytest

from index.storage.local import LocalBlobStore, LocalPointer, Remedies
from index.storage.protocols import CHUNK_BYTES, Blob, Move, split
from index.storage.redis import RedisBlobStore, RedisPointer
from index.storage.redis_client import RedisClient
from tests.support.redis_server import wait_until

A, B, C = ("a" * 16, "b" * 16, "c" * 16)
REMEDIES = Remedies("make it readable", "make room", "write elsewhere")
FOR_GOOD_S, SOON_S = 3_600.0, 0.2


@pytest.fixture(params=["folder", "redis"])
def open_pointer(request, tmp_path):
    if request.param == "folder":
        return lambda: LocalPointer(tmp_path / "value", ".value.lock", REMEDIES)
    redis = request.getfixturevalue("redis")
    return lambda: RedisPointer(RedisClient(redis.url), "value", "here")


@pytest.fixture(params=["folder", "redis"])
def open_blobs(request, tmp_path):
    if request.param == "folder":
        return lambda: LocalBlobStore(tmp_path / "blobs", REMEDIES)
    redis = request.getfixturevalue("redis")
    return lambda: RedisBlobStore(RedisClient(redis.url), "blobs:", "here")


@pytest.fixture
def blobs(open_blobs):
    return open_blobs()


def blob_of(version, size=10):
    content = memoryview(version.encode() * (size // 16 + 1))[:size]
    return Blob(version, {"size": size}, split(content))


def put(blobs, version, size=10, ttl_s=FOR_GOOD_S):
    """Point at a blob alone; what was kept before expires."""

    def plan(snapshot):
        before = {snapshot.value.decode()} if snapshot.value else set()
        return Move(version.encode(), {version}, before, ttl_s), before

    return blobs.commit(plan, blob_of(version, size))


def content_of(blobs, version):
    stored = blobs.get(version)
    content = bytearray(stored.header.meta["size"])
    assert stored.read_into(split(memoryview(content))) == []
    return bytes(content)


def test_a_pointer_is_replaced_by_what_a_plan_makes_of_it(open_pointer):
    assert open_pointer().read() is None
    assert open_pointer().update(lambda found: (b"first", found)) is None
    assert open_pointer().update(lambda found: (b"second", found)) == b"first"
    assert open_pointer().update(lambda found: (None, "left")) == "left"
    assert (open_pointer().read(), open_pointer().read(3)) == (b"second", b"sec")


def test_a_plan_that_raises_changes_no_pointer(open_pointer):
    open_pointer().update(lambda _: (b"first", None))

    def fail(_):
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        open_pointer().update(fail)
    assert open_pointer().read() == b"first"


def test_of_many_that_update_at_once_none_is_lost(open_pointer):
    def count():
        pointer = open_pointer()
        for _ in range(20):
            pointer.update(lambda found: (str(int(found or 0) + 1).encode(), None))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert open_pointer().read() == b"80"


@pytest.mark.parametrize("size", [1, CHUNK_BYTES, 2 * CHUNK_BYTES + 1])
def test_a_blob_is_read_back_equal(open_blobs, size):
    put(open_blobs(), A, size)
    assert content_of(open_blobs(), A) == b"".join(blob_of(A, size).chunks)
    assert open_blobs().pointer.read() == A.encode()


def test_a_blob_that_is_not_there_is_none(blobs):
    assert blobs.get(A) is None
    assert blobs.list_blobs() == []
    assert blobs.delete(lambda _, infos: [info.version for info in infos]) == []


def test_the_digest_of_a_blob_is_checked(blobs, request, tmp_path):
    put(blobs, A)
    if isinstance(blobs, LocalBlobStore):
        path = tmp_path / "blobs" / A
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    else:
        request.getfixturevalue("redis").client.setrange(f"blobs:{A}:0", 9, b"?")
    (fault,) = blobs.get(A).read_into([memoryview(bytearray(10))])
    assert "they were changed" in fault


def test_what_a_move_releases_expires_and_what_it_keeps_stays(blobs):
    for version in (A, B):
        put(blobs, version)
    first, second = blobs.list_blobs()
    assert (first.version, second.version) == (A, B)
    assert 0 < first.expires_in_s <= FOR_GOOD_S
    assert second.expires_in_s is None
    put(blobs, C, ttl_s=SOON_S)
    wait_until(lambda: blobs.get(B) is None)
    assert blobs.get(A) is not None


def test_a_blob_that_a_move_does_not_keep_expires(blobs):
    put(blobs, A)
    blobs.commit(lambda snapshot: (Move(snapshot.value, {A}, set(), FOR_GOOD_S), None), blob_of(B))
    assert blobs.pointer.read() == A.encode()
    assert {info.version: info.expires_in_s is None for info in blobs.list_blobs()} == {
        A: True,
        B: False,
    }


def test_a_plan_sees_which_blobs_are_there(blobs):
    put(blobs, A)

    def plan(snapshot):
        found = (snapshot.value, snapshot.faults_of(A), snapshot.faults_of(B))
        return Move(snapshot.value, {A}, set(), FOR_GOOD_S), found

    assert blobs.commit(plan) == (A.encode(), [], None)


def test_what_is_chosen_is_deleted_and_nothing_else(blobs):
    for version in (A, B, C):
        put(blobs, version)
    seen = []

    def choose(value, infos):
        seen.append((value, [info.version for info in infos]))
        return [B]

    assert blobs.delete(choose) == [B]
    assert seen == [(C.encode(), [A, B, C])]
    assert [info.version for info in blobs.list_blobs()] == [A, C]
