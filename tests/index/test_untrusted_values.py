"""Values and files that no publisher writes: out of range, repeated, huge, or not a file."""

import json
import os

import orjson
import pytest
from pydantic import Field

from index.arrays import open_array
from index.bundle.manifest import read_manifest
from index.bundle.registry import BundleRegistry
from index.cluster_map_io import open_cluster_map
from index.cluster_map_registry import ClusterMapRegistry
from index.cluster_map_stores import local_map_blobs
from index.denylist import Denylist, local_denylist
from index.errors import InvalidBundleError, InvalidClusterMapError, InvalidDenylistError
from index.fsio import MAX_INTEGER, FrozenModel, read_bounded
from index.storage.local import lock_file
from index.storage.protocols import parse_header
from tests.support.cluster_maps import numbered_map, redis_maps

A, B, C = (numbered_map(number) for number in range(3))
TB = 1 << 40


def make_fifo(path):
    os.mkfifo(path)


def make_device_link(path):
    path.symlink_to("/dev/zero")


def make_huge(path):
    with path.open("wb") as stream:
        stream.truncate(4 * TB)


IRREGULAR = [make_fifo, make_device_link, make_huge]


class Document(FrozenModel):
    """Any document."""

    count: int
    more: dict[str, object] = Field(default={})


@pytest.mark.parametrize(
    "content",
    [
        b'{"count": 1, "count": 2}',
        b'{"count": 1, "more": {"a": 1, "a": 2}}',
        b'{"count": 9007199254740992}',
        b'{"count": 18446744073709551616}',
        b'{"count": 1, "more": {"deep": [-9007199254740992]}}',
        b'{"count": ' + b"9" * 5_000 + b"}",
        b'{"count": 1, "more": {"a": 1e400}}',
        b'{"count": 1, "more": {"a": NaN}}',
        b'{"count": 1, "more": {"a": ' + b"[" * 100_000,
        b'{"count": 1, "more": {"a": ' + b"[" * 300 + b"]" * 300 + b"}}",
        b'{"count": 1, "more": {"a": "\\ud800"}}',
        '{"count": 1}'.encode("utf-16"),
    ],
)
def test_parse_json_ambiguous_document_raises(content):
    with pytest.raises(ValueError, match=r"."):
        Document.parse_json(content)


def test_parse_json_largest_integers_can_be_rendered():
    content = f'{{"count": {MAX_INTEGER}, "more": {{"a": {-MAX_INTEGER}}}}}'
    document = Document.parse_json(content.encode())
    assert orjson.loads(orjson.dumps(document.model_dump())) == json.loads(content)


@pytest.fixture(params=["folder", "redis"])
def open_maps(request, tmp_path, redis):
    """Open a registry in a folder or in Redis, and a function that replaces its pointer."""
    if request.param == "folder":
        registry = ClusterMapRegistry(local_map_blobs(tmp_path / "maps"))
        return registry, lambda value: (tmp_path / "maps" / "current").write_bytes(value)
    registry = redis_maps(redis.url)
    return registry, lambda value: redis.client.set("esans:clusters:current", value)


@pytest.mark.parametrize("sequence", [2**53, 2**64])
def test_pointer_sequence_out_of_range_is_invalid(open_maps, sequence):
    registry, replace_pointer = open_maps
    pointer = registry.publish(A)
    replace_pointer(pointer.model_copy(update={"sequence": sequence}).model_dump_json().encode())
    with pytest.raises(InvalidClusterMapError):
        registry.pointer()
    assert registry.roll_back(A.version).sequence < sequence
    assert registry.pointer().version == A.version


def test_pointer_too_large_is_invalid_and_repairable(open_maps):
    registry, replace_pointer = open_maps
    value = registry.publish(A).model_dump_json().encode()
    replace_pointer(value + b" " * 5_000)
    with pytest.raises(InvalidClusterMapError):
        registry.pointer()
    with pytest.raises(InvalidClusterMapError):
        registry.unpin()
    assert registry.roll_back(A.version) == registry.pointer()


def test_pointer_at_largest_sequence_can_be_followed(open_maps):
    registry, replace_pointer = open_maps
    pointer = registry.publish(A).model_copy(update={"sequence": MAX_INTEGER})
    replace_pointer(pointer.model_dump_json().encode())
    assert registry.publish(B).sequence == MAX_INTEGER
    assert registry.pointer().version == B.version


@pytest.mark.parametrize("sequence", [2**53, 2**64])
def test_denylist_sequence_out_of_range_is_invalid(tmp_path, sequence):
    store = local_denylist(tmp_path / "denylist")
    head = Denylist(1, ("a",)).render().replace(b'"sequence":1,', b'"sequence":%d,' % sequence)
    (tmp_path / "denylist").write_bytes(head)
    for read in (store.head, store.load):
        with pytest.raises(InvalidDenylistError):
            read()
    assert store.replace(["b"], 1.0).sequence == 1_000


def test_denylist_at_largest_sequence_can_be_replaced(tmp_path):
    store = local_denylist(tmp_path / "denylist")
    (tmp_path / "denylist").write_bytes(Denylist(MAX_INTEGER, ("a",)).render())
    store.replace(["b"], 1.0)
    assert store.load() == Denylist(MAX_INTEGER, ("b",))


def test_header_time_out_of_range_is_invalid(tmp_path):
    blobs = local_map_blobs(tmp_path)
    ClusterMapRegistry(blobs).publish(A)
    header = (tmp_path / A.version).read_bytes().split(b"\n", 1)[0]
    stored_at = json.loads(header)["stored_at"]
    assert parse_header(header)
    assert parse_header(header.replace(str(stored_at).encode(), b"1e300")) is None


@pytest.mark.parametrize("make", IRREGULAR)
def test_irregular_cluster_map_files_are_invalid(tmp_path, make):
    registry = ClusterMapRegistry(local_map_blobs(tmp_path))
    registry.publish(A)
    for name in ("current", A.version):
        (tmp_path / name).unlink()
        make(tmp_path / name)
    with pytest.raises(InvalidClusterMapError):
        registry.pointer()
    assert registry.publish(B) == registry.pointer()
    assert A.version not in [info.version for info in registry.list_maps() if info.items]


def test_irregular_expiry_and_lock_do_not_block(tmp_path):
    registry = ClusterMapRegistry(local_map_blobs(tmp_path))
    registry.publish(A)
    make_fifo(tmp_path / f"{A.version}.expires")
    (tmp_path / ".lock").unlink()
    make_fifo(tmp_path / ".lock")
    registry.publish(B)  # A stays as the previous one
    make_fifo(tmp_path / f"{A.version}.expires")
    registry.publish(C)
    expiries = {info.version: info.expires_in_s for info in registry.list_maps()}
    assert set(expiries) == {A.version, B.version, C.version}
    assert expiries[A.version] > 0


def test_lock_held_elsewhere_raises(tmp_path):
    lock = tmp_path / ".lock"
    with lock_file(lock), pytest.raises(TimeoutError), lock_file(lock, timeout_s=0.05):
        pass
    with lock_file(tmp_path / ".lock", timeout_s=0.05):
        pass


def test_lock_does_not_change_an_existing_file(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / ".lock").symlink_to(tmp_path / "file")
    with lock_file(tmp_path / ".lock"):
        assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("make", IRREGULAR)
def test_irregular_denylist_is_invalid(tmp_path, make):
    make(tmp_path / "denylist")
    store = local_denylist(tmp_path / "denylist")
    for read in (store.head, store.load):
        with pytest.raises(InvalidDenylistError):
            read()
    store.replace(["a"], 1.0)
    assert store.load().ids == ("a",)


@pytest.mark.parametrize("make", IRREGULAR)
def test_irregular_bundle_pointer_is_invalid(tmp_path, make):
    make(tmp_path / "current")
    with pytest.raises(InvalidBundleError):
        BundleRegistry(tmp_path).pointer()


@pytest.mark.parametrize("make", IRREGULAR)
def test_irregular_manifest_is_invalid(tmp_path, make):
    make(tmp_path / "manifest.json")
    with pytest.raises(InvalidBundleError):
        read_manifest(tmp_path)


def test_irregular_arrays_raise(tmp_path):
    make_fifo(tmp_path / "cluster_map.codes1.npy")
    with pytest.raises(ValueError, match="no regular file"):
        open_array(tmp_path / "cluster_map.codes1.npy", "int32")
    make_fifo(tmp_path / "cluster_map.json")
    with pytest.raises(InvalidClusterMapError):
        open_cluster_map(tmp_path)


def test_read_bounded_accepts_exactly_the_maximum(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert read_bounded(tmp_path / "file", 3) == b"abc"
    with pytest.raises(ValueError, match="3 bytes"):
        read_bounded(tmp_path / "file", 2)


def test_manifest_duplicate_key_is_invalid(bundle_copy):
    path = bundle_copy / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 1, "format": 1'))
    with pytest.raises(InvalidBundleError) as raised:
        read_manifest(bundle_copy)
    assert raised.value.faults == ("the file: found the key 'format' twice, expected it once",)
