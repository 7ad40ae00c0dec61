import re

import pytest

from index.bundle.registry import BundleRegistry
from tests.support.report_bundles import publish
from trainer.__main__ import main


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    publish(folder)
    return folder


def error_of(capsys, *words):
    """Error message of the failing command."""
    assert main(["report", *map(str, words)]) == 1
    return capsys.readouterr().err


def test_report_rejects_output_inside_bundle(bundles, capsys):
    (version,) = [path for path in bundles.iterdir() if path.is_dir()]
    before = sorted(version.rglob("*"))
    for out in (version / "report.html", version / "new" / "report.html"):
        error = error_of(capsys, "--bundles", bundles, "--out", out)
        assert "which is immutable" in error
    assert sorted(version.rglob("*")) == before


def test_report_without_bundles_names_the_remedy(tmp_path, capsys):
    out = tmp_path / "report.html"
    error = error_of(capsys, "--bundles", tmp_path, "--out", out)
    assert "no bundle is published here yet" in error
    assert "python -m trainer run" in error
    assert not out.exists()


def test_report_rejects_unknown_version(bundles, tmp_path, capsys):
    error = error_of(
        capsys, "--bundles", bundles, "--version", "never", "--out", tmp_path / "r.html"
    )
    assert "holds no bundle 'never'" in error


def test_report_rejects_unwritable_output(bundles, tmp_path, capsys):
    assert "is a folder" in error_of(capsys, "--bundles", bundles, "--out", tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    error = error_of(capsys, "--bundles", bundles, "--out", tmp_path / "file" / "report.html")
    assert "cannot be written" in error


def test_report_default_is_self_contained_beside_bundle(bundles, capsys):
    assert main(["report", "--bundles", str(bundles)]) == 0
    out = BundleRegistry(bundles).report_path(BundleRegistry(bundles).current().name)
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) > 2  # progress
    assert str(out) in printed
    text = out.read_text(encoding="utf-8")
    rest = re.sub(r"<script>/\*\*.*?</script>", "", text, count=1, flags=re.DOTALL)
    assert len(rest) < 300_000 < len(text)  # the plotly script is in the file
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", rest)
    assert not re.search(r"@import|url\(|<link|<img|<iframe", rest)
    assert "default-src 'none'" in rest


def test_report_offers_no_upload(bundles, tmp_path):
    out = tmp_path / "report.html"
    assert main(["report", "--bundles", str(bundles), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    body = text[text.index("<body>") :]
    assert body.count("Plotly.newPlot(") == body.count('"showSendToCloud": false') == 1
    assert "plotlyServerURL" not in body
