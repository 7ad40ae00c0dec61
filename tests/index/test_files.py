import json

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
