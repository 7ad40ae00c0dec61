import os

import pytest

from index.__main__ import main
from index.denylist import local_denylist
from tests.support.denylists import UNUSUAL_IDS

NOW = 1_769_854_500.0


def run(capsys, *words):
    """Run a command; return its exit status, stdout and stderr."""
    status = main(["denylist", *map(str, words)])
    output = capsys.readouterr()
    return status, output.out, output.err


@pytest.mark.parametrize("kind", ["folder", "redis"])
def test_denylist_commands_change_list(tmp_path, capsys, redis, kind):
    options = ["--redis", redis.url] if kind == "redis" else ["--bundles", tmp_path]
    assert "no denylist is set" in run(capsys, "list", *options)[2]
    assert "3 items are denied" in run(capsys, "set", *options, "a", "b", "--", "-c")[1]
    assert run(capsys, "list", *options)[1] == "-c\na\nb\n"
    assert "4 items" in run(capsys, "add", *options, "d")[1]
    assert "2 items" in run(capsys, "remove", *options, "a", "b", "e")[1]
    assert "2 items are denied (sequence" in run(capsys, "show", *options)[1]


def test_denylist_set_reads_ids_from_file_unchanged(tmp_path, capsys):
    file = tmp_path / "ids"
    options = ["--bundles", tmp_path]
    file.write_bytes('\ufeff spaced \r\n"quoted"\r\n\r\nünï\u2028x\nlast'.encode())
    assert run(capsys, "set", *options, "--file", file)[0] == 0
    ids = (" spaced ", '"quoted"', "last", "ünï\u2028x")
    assert local_denylist(tmp_path / "denylist").load().ids == tuple(sorted(ids))
    local_denylist(tmp_path / "denylist").replace(UNUSUAL_IDS, NOW)
    assert "--json-lines" in run(capsys, "list", *options)[2]
    file.write_text(run(capsys, "list", *options, "--json-lines")[1])
    run(capsys, "set", *options, "other")
    run(capsys, "set", *options, "--json-lines", "--file", file)
    assert local_denylist(tmp_path / "denylist").load().ids == tuple(sorted(UNUSUAL_IDS))
    file.write_text("")
    assert "0 items" in run(capsys, "set", *options, "--file", file)[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["set"], "expected either ids or --file FILE"),
        (["set", "a", "--file", "x"], "expected either ids or --file FILE"),
        (["add", "--file", "/no/such"], "cannot be read"),
        (["add", ""], "expected an id of 1 to 512"),
        (["add", "x" * 513], "expected an id of 1 to 512"),
        (["add", os.fsdecode(b"\xff")], "expected an id of 1 to 512"),
        (["add", "--json-lines", "a"], "expected a JSON string"),
    ],
)
def test_denylist_commands_reject_invalid_ids(tmp_path, capsys, words, message):
    status, _, stderr = run(capsys, words[0], "--bundles", tmp_path, *words[1:])
    assert (status, message in stderr) == (1, True)
    assert not (tmp_path / "denylist").exists()


def test_denylist_set_rejects_non_utf8_file(tmp_path, capsys):
    (tmp_path / "ids").write_bytes(b"\xff\xfe")
    words = ["set", "--bundles", tmp_path, "--file", tmp_path / "ids"]
    assert "save it as UTF-8" in run(capsys, *words)[2]
    assert "no store is configured" in run(capsys, "show")[2]
