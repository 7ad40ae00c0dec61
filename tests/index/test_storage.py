"""Pointers and blob stores in a folder and in Redis."""

import threading

import pytest

from index.storage.local import LocalBlobStore, LocalPointer, Remedies
from index.storage.protocols import CHUNK_BYTES, Blob, Move, split_chunks
from index.storage.redis import RedisBlobStore, RedisPointer
from index.storage.redis_client import RedisClient
from tests.support.redis_server import wait_until

A, B, C = ("a" * 16, "b" * 16, "c" * 16)
REMEDIES = Remedies("make it readable", "make room", "write elsewhere")
KEEP_S, SHORT_S = 3_600.0, 0.2


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
    return Blob(version, {"size": size}, split_chunks(content))


def put_blob(blobs, version, size=10, ttl_s=KEEP_S):
    """Put a blob and point to it; the previous blob expires."""

    def plan(snapshot):
        before = {snapshot.value.decode()} if snapshot.value else set()
        return Move(version.encode(), {version}, before, ttl_s), before

    return blobs.commit(plan, blob_of(version, size))


def content_of(blobs, version):
    stored = blobs.get(version)
    content = bytearray(stored.header.meta["size"])
    assert stored.read_into(split_chunks(memoryview(content))) == []
    return bytes(content)


def test_pointer_update_applies_plan(open_pointer):
    assert open_pointer().read() is None
    assert open_pointer().update(lambda value: (b"first", value)) is None
    assert open_pointer().update(lambda value: (b"second", value)) == b"first"
    assert open_pointer().update(lambda value: (None, "unchanged")) == "unchanged"
    assert (open_pointer().read(), open_pointer().read(3)) == (b"second", b"sec")


def test_pointer_update_with_failing_plan_changes_nothing(open_pointer):
    open_pointer().update(lambda _: (b"first", None))

    def fail(_):
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        open_pointer().update(fail)
    assert open_pointer().read() == b"first"


def test_pointer_concurrent_updates_lose_nothing(open_pointer):
    def count():
        pointer = open_pointer()
        for _ in range(20):
            pointer.update(lambda value: (str(int(value or 0) + 1).encode(), None))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert open_pointer().read() == b"80"


@pytest.mark.parametrize("size", [1, CHUNK_BYTES, 2 * CHUNK_BYTES + 1])
def test_blob_is_read_back_equal(open_blobs, size):
    put_blob(open_blobs(), A, size)
    assert content_of(open_blobs(), A) == b"".join(blob_of(A, size).chunks)
    assert open_blobs().pointer.read() == A.encode()


def test_get_missing_blob_returns_none(blobs):
    assert blobs.get(A) is None
    assert blobs.list_blobs() == []
    assert blobs.delete(lambda _, infos: [info.version for info in infos]) == []


def test_read_into_checks_digest(blobs, request, tmp_path):
    put_blob(blobs, A)
    if isinstance(blobs, LocalBlobStore):
        path = tmp_path / "blobs" / A
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    else:
        request.getfixturevalue("redis").client.setrange(f"blobs:{A}:0", 9, b"?")
    (fault,) = blobs.get(A).read_into([memoryview(bytearray(10))])
    assert "the chunks have sha256" in fault


def test_commit_expires_released_and_keeps_kept_blobs(blobs):
    for version in (A, B):
        put_blob(blobs, version)
    first, second = blobs.list_blobs()
    assert (first.version, second.version) == (A, B)
    assert 0 < first.expires_in_s <= KEEP_S
    assert second.expires_in_s is None
    put_blob(blobs, C, ttl_s=SHORT_S)
    wait_until(lambda: blobs.get(B) is None)
    assert blobs.get(A) is not None


def test_commit_expires_blob_that_is_not_kept(blobs):
    put_blob(blobs, A)
    blobs.commit(lambda snapshot: (Move(snapshot.value, {A}, set(), KEEP_S), None), blob_of(B))
    assert blobs.pointer.read() == A.encode()
    assert {info.version: info.expires_in_s is None for info in blobs.list_blobs()} == {
        A: True,
        B: False,
    }


def test_commit_plan_sees_stored_blobs(blobs):
    put_blob(blobs, A)

    def plan(snapshot):
        seen = (snapshot.value, snapshot.faults_of(A), snapshot.faults_of(B))
        return Move(snapshot.value, {A}, set(), KEEP_S), seen

    assert blobs.commit(plan) == (A.encode(), [], None)


def test_delete_removes_only_selected_blobs(blobs):
    for version in (A, B, C):
        put_blob(blobs, version)
    seen = []

    def select(value, infos):
        seen.append((value, [info.version for info in infos]))
        return [B]

    assert blobs.delete(select) == [B]
    assert seen == [(C.encode(), [A, B, C])]
    assert [info.version for info in blobs.list_blobs()] == [A, C]
