from datetime import timedelta

import pytest

from index.__main__ import main
from index.bundle.registry import BundleRegistry
from tests.support.synthetic_bundle import NOW, publish_handmade


@pytest.fixture
def three(tmp_path):
    return [publish_handmade(tmp_path, now=NOW + timedelta(days=day)) for day in range(3)]


def test_show_lists_the_bundles_and_marks_the_current_one(tmp_path, three, capsys):
    assert main(["show", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:23].split()[-1] for line in lines[:3]] == three
    assert [line[0] for line in lines[:3]] == [" ", " ", "*"]
    assert "40 items  Flat  recall@50 not measured" in lines[2]


def test_show_tells_how_to_publish_where_nothing_is(tmp_path, capsys):
    assert main(["show", str(tmp_path)]) == 1
    assert "python -m trainer run" in capsys.readouterr().err


def test_show_lists_the_others_where_one_manifest_is_broken(tmp_path, three, capsys):
    (tmp_path / three[0] / "manifest.json").write_text("{")
    assert main(["show", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert three[0] in lines[0]
    assert "faulty" in lines[0]
    assert lines[2].startswith(f"* {three[2]}")


def test_rollback_goes_back_and_forth(tmp_path, three, capsys):
    assert main(["rollback", str(tmp_path)]) == 0
    assert f"current is now {three[1]}; before it {three[2]}" in capsys.readouterr().out
    assert main(["rollback", str(tmp_path)]) == 0
    assert BundleRegistry(tmp_path).current().name == three[2]


def test_rollback_to_a_version_that_is_not_there_changes_nothing(tmp_path, three, capsys):
    assert main(["rollback", str(tmp_path), "20200101T000000Z-0000"]) == 1
    assert "holds no bundle" in capsys.readouterr().err
    assert BundleRegistry(tmp_path).current().name == three[2]


def test_prune_names_what_it_removed(tmp_path, three, capsys):
    assert main(["prune", str(tmp_path), "--keep", "1"]) == 0
    assert capsys.readouterr().out == f"removed {three[0]}\n"
    assert main(["prune", str(tmp_path), "--keep", "1"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_prune_refuses_a_count_below_0(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["prune", str(tmp_path), "--keep", "-1"])
    assert "found '-1', expected a whole number, 0 or more" in capsys.readouterr().err
