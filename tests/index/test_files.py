import json
import resource
import threading

import pytest

from index.fsio import write_atomic, write_json


def test_write_json_failure_keeps_old_file(tmp_path):
    path = tmp_path / "current"
    write_json(path, {"sequence": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": "written before what cannot be", "b": object()})
    assert json.loads(path.read_text()) == {"sequence": 1}
    write_json(path, {"sequence": 2})
    assert json.loads(path.read_text()) == {"sequence": 2}


def test_write_atomic_failing_chunks_keep_old_file(tmp_path):
    path = tmp_path / "0123456789abcdef"
    write_atomic(path, [b"old"])

    def chunks():
        yield b"new"
        raise OSError("planted")

    with pytest.raises(OSError, match="planted"):
        write_atomic(path, chunks())
    assert path.read_bytes() == b"old"


def test_write_atomic_failure_leaves_no_other_file(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # as on a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomic(tmp_path / "current", [bytes(1 << 21)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_write_atomic_in_two_threads_writes_whole_files(tmp_path):
    contents, faults = [b"a" * 1_000, b"b" * 1_000], []

    def write(content):
        for _ in range(50):
            try:
                write_atomic(tmp_path / "current", [content])
                faults.extend({(tmp_path / "current").read_bytes()} - {*contents})
            except OSError as error:
                faults.append(error)

    threads = [threading.Thread(target=write, args=[content]) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
