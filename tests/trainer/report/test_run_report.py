import re
from datetime import timedelta

import pytest

from index.bundle.registry import BundleRegistry
from tests.support.report_bundles import COUNT, MARKUP, METRICS, TRAINING, publish, publish_complete
from tests.support.synthetic_bundle import NOW
from trainer.__main__ import main
from trainer.report.run_report import write_run_report

SECTIONS = (
    "Overview",
    "Training",
    "Comparison with popularity and EASE",
    "Recall by item popularity",
    "Difference to the previous bundle",
    "Example candidates",
    "Item vectors",
    "Cluster map",
    "Index recall",
    "Configuration",
)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    publish(folder / "bundles", metrics={"model": METRICS["popularity"]})
    version = publish_complete(folder / "bundles", NOW + timedelta(days=1))
    out = folder / "new" / "report.html"
    assert main(["report", "--bundles", str(folder / "bundles"), "--out", str(out)]) == 0
    return version, body_of(out)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare")
    publish(folder / "bundles")
    out = folder / "report.html"
    assert main(["report", "--bundles", str(folder / "bundles"), "--out", str(out)]) == 0
    return body_of(out)


def body_of(path):
    """Body of the page, without the plotly script."""
    text = path.read_text(encoding="utf-8")
    return text[text.index("<body>") :]


def test_run_report_lists_every_section(complete):
    _, body = complete
    assert tuple(re.findall(r"<h2 id=[^>]*>([^<]*)</h2>", body)) == SECTIONS
    anchors = re.findall(r'<a href="#([^"]*)"', body)
    assert re.findall(r'<h2 id="([^"]*)"', body) == anchors


def test_run_report_has_intervals_if_the_bundle_has(complete, bare):
    _, body = complete
    assert "<td>95 % interval of this model</td><td>0.4712 to 0.5288</td>" in body
    assert "95 % interval" not in bare


def test_run_report_figures_name_their_source(complete):
    _, body = complete
    names = re.findall(r'<div id="figure-([a-z]+)"', body)
    assert names == ["curve", "hardness", "methods", "buckets", "map", "sizes"]
    captions = re.findall(r'<p class="caption">([^<]*)</p>', body)
    assert all(re.search(r"From [\w.]+\.(json|npy)", message) for message in captions)


def test_run_report_shows_version_and_settings(complete):
    version, body = complete
    assert version in body
    assert "<td>training.sampler.name</td><td>esans</td>" in body
    assert "<td>seed</td><td>7</td>" in body


def test_run_report_table_shows_metrics_of_manifest(complete):
    _, body = complete
    match = re.search(r"<td>this model</td>(.*?)</tr>", body).group(1)
    assert re.findall(r">([\d.]+)<", match) == [
        *("0.5000", "0.5100", "0.5200", "0.5300", "0.5400", "0.5500", "0.5600")
    ]


def test_run_report_shows_index_recall(complete):
    _, body = complete
    assert re.search(r"<td>@50</td><td class=\"number\">0.9876</td>", body)


def cells_of(body, name):
    """Cells of the table row that begins with a name."""
    (row,) = re.findall(f"<tr><td[^>]*>{re.escape(name)}</td>(.*?)</tr>", body)
    return re.findall(r">([^<]+)</td>", row)


def test_run_report_compares_with_previous_bundle(complete):
    _, body = complete
    assert cells_of(body, "training interactions") == ["6", "6", "0"]
    assert cells_of(body, "recall@50") == ["0.1100", "0.5100", "0.4000"]


def test_report_says_that_metrics_are_before_the_refit(tmp_path):
    refitted = TRAINING | {"refit": {"epochs": 2, "interactions": 1_234}, "warm_from": "a version"}
    publish(tmp_path, run={"training": refitted}, metrics=METRICS)
    publish(tmp_path, run={"training": TRAINING}, metrics=METRICS, now=NOW + timedelta(days=1))
    earlier, later = BundleRegistry(tmp_path).versions()
    pages = []
    for version in (earlier, later):
        out = tmp_path / f"{version}.html"
        write_run_report(tmp_path, version, out)
        pages.append(body_of(out))
    note = "the metrics are those of the model before the refit"
    assert [note in page for page in pages] == [True, False]
    assert "for 2 epochs on all 1,234 interactions" in pages[0]
    assert "Its metrics are those of the model before its refit." in pages[1]
    assert cells_of(pages[0], "warm start from") == ["a version"]
    assert cells_of(pages[1], "warm start from") == ["none"]


def test_run_report_shows_candidates_with_titles(complete):
    _, body = complete
    candidates = cells_of(body, "10")
    assert len(candidates) == 3
    assert all(re.fullmatch(r"item \d+ \(-?\d\.\d{3}\)", each) for each in candidates)


def test_run_report_without_earlier_bundle_says_so(bare):
    assert "No earlier bundle is in the folder." in bare


def test_run_report_escapes_markup_in_titles(complete):
    _, body = complete
    assert MARKUP not in body
    assert "<script>alert" not in body
    assert r"\u0026lt;script\u0026gt;alert" in body or "&lt;script&gt;alert" in body


def test_run_report_names_buckets_without_figure(complete):
    _, body = complete
    assert "No figure for tail, cold: fewer than 200 test items." in body


def test_run_report_of_bare_bundle_names_missing_parts(bare):
    messages = re.findall(r'<p class="missing">([^<]*)</p>', bare)
    for words in ("training curve", "test metrics", "by popularity", "configuration"):
        assert any(words in message for message in messages)
    assert any("used no cluster map" in message and "esans" in message for message in messages)
    assert any("Not coloured by category" in message for message in messages)
    assert re.findall(r'<div id="figure-([a-z]+)"', bare) == ["map"]
    assert f"{COUNT} of {COUNT} items" in bare
