import re

import pytest

from tests.support.report_bundles import publish
from trainer.__main__ import main


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    publish(folder)
    return folder


def refused(capsys, *words):
    """The reason that the command gives."""
    assert main(["report", *map(str, words)]) == 1
    return capsys.readouterr().err


def test_nothing_is_written_into_a_bundle(bundles, capsys):
    (version,) = [one for one in bundles.iterdir() if one.is_dir()]
    before = sorted(version.rglob("*"))
    for out in (version / "report.html", version / "new" / "report.html"):
        told = refused(capsys, "--bundles", bundles, "--out", out)
        assert "which is immutable" in told
    assert sorted(version.rglob("*")) == before


def test_a_folder_without_bundles_is_told_with_the_remedy(tmp_path, capsys):
    out = tmp_path / "report.html"
    told = refused(capsys, "--bundles", tmp_path, "--out", out)
    assert "no bundle is published here yet" in told
    assert "python -m trainer run" in told
    assert not out.exists()


def test_an_unknown_version_is_told_with_those_there_are(bundles, tmp_path, capsys):
    told = refused(capsys, "--bundles", bundles, "--version", "never", "--out", tmp_path / "r.html")
    assert "holds no bundle 'never'" in told


def test_a_place_that_cannot_be_written_is_told(bundles, tmp_path, capsys):
    assert "is a folder" in refused(capsys, "--bundles", bundles, "--out", tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    told = refused(capsys, "--bundles", bundles, "--out", tmp_path / "file" / "report.html")
    assert "cannot be written" in told


def test_the_report_lands_in_the_current_folder_and_loads_nothing(
    bundles, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--bundles", str(bundles)]) == 0
    assert "report.html" in capsys.readouterr().out
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    rest = re.sub(r"<script>/\*\*.*?</script>", "", text, count=1, flags=re.DOTALL)
    assert len(rest) < 300_000 < len(text)  # the script that draws is in the file
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", rest)
    assert not re.search(r"@import|url\(|<link|<img|<iframe", rest)
    assert "default-src 'none'" in rest


def test_nothing_that_is_drawn_is_offered_for_upload(bundles, tmp_path):
    out = tmp_path / "report.html"
    assert main(["report", "--bundles", str(bundles), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    body = text[text.index("<body>") :]
    assert body.count("Plotly.newPlot(") == body.count('"showSendToCloud": false') == 1
    assert "plotlyServerURL" not in body
