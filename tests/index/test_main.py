from datetime import timedelta

import pytest

from index.__main__ import main
from index.bundle.registry import BundleRegistry
from tests.support.synthetic_bundle import NOW, publish_handmade


@pytest.fixture
def versions(tmp_path):
    return [publish_handmade(tmp_path, now=NOW + timedelta(days=day)) for day in range(3)]


def test_show_lists_bundles_and_marks_current(tmp_path, versions, capsys):
    assert main(["show", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:23].split()[-1] for line in lines[:3]] == versions
    assert [line[0] for line in lines[:3]] == [" ", " ", "*"]
    assert "40 items  Flat  recall@50 not measured" in lines[2]


def test_show_without_bundles_says_how_to_publish(tmp_path, capsys):
    assert main(["show", str(tmp_path)]) == 1
    assert "python -m trainer run" in capsys.readouterr().err


def test_show_with_invalid_manifest_lists_others(tmp_path, versions, capsys):
    (tmp_path / versions[0] / "manifest.json").write_text("{")
    assert main(["show", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert versions[0] in lines[0]
    assert "invalid" in lines[0]
    assert lines[2].startswith(f"* {versions[2]}")


def test_rollback_twice_goes_further_back(tmp_path, versions, capsys):
    first, second, third = versions
    assert main(["rollback", str(tmp_path)]) == 0
    assert f"rolled back from {third} to {second}" in capsys.readouterr().out
    assert main(["rollback", str(tmp_path)]) == 0
    assert f"rolled back from {second} to {first}" in capsys.readouterr().out
    assert main(["rollback", str(tmp_path)]) == 1
    assert BundleRegistry(tmp_path).current().name == first


def test_rollback_with_damaged_pointer_repairs_it(tmp_path, versions):
    (tmp_path / "current").write_text("{")
    assert main(["rollback", str(tmp_path), versions[0]]) == 0
    assert BundleRegistry(tmp_path).current().name == versions[0]


def test_rollback_to_missing_version_changes_nothing(tmp_path, versions, capsys):
    assert main(["rollback", str(tmp_path), "20200101T000000Z-0000"]) == 1
    assert "holds no bundle" in capsys.readouterr().err
    assert BundleRegistry(tmp_path).current().name == versions[2]


def test_prune_lists_removed_bundles(tmp_path, versions, capsys):
    assert main(["prune", str(tmp_path), "--keep", "1"]) == 0
    assert capsys.readouterr().out == f"removed {versions[0]}\n"
    assert main(["prune", str(tmp_path), "--keep", "1"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


def test_prune_rejects_negative_count(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["prune", str(tmp_path), "--keep", "-1"])
    assert "found '-1', expected a whole number, 0 or more" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["s3://bundles", "file:///bundles", "gs+x://a/b"])
@pytest.mark.parametrize(
    "command", ["show", "rollback", "prune", "clusters list --bundles", "denylist set a --bundles"]
)
def test_url_for_folder_is_rejected(tmp_path, monkeypatch, capsys, command, url):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([*command.split(), url])
    assert f"found the URL '{url}', expected a path" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
