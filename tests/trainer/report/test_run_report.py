import re

import pytest

from tests.support.report_bundles import COUNT, MARKUP, publish, publish_whole
from trainer.__main__ import main

SECTIONS = (
    "Overview",
    "Training",
    "Comparison with popularity and EASE",
    "Recall by item popularity",
    "Item vectors",
    "Cluster map",
    "Index recall",
    "Configuration",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    version = publish_whole(folder / "bundles")
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
    """The page without the script that draws."""
    text = path.read_text(encoding="utf-8")
    return text[text.index("<body>") :]


def test_every_section_is_there_and_in_the_contents(whole):
    _, body = whole
    assert tuple(re.findall(r"<h2 id=[^>]*>([^<]*)</h2>", body)) == SECTIONS
    anchors = re.findall(r'<a href="#([^"]*)"', body)
    assert re.findall(r'<h2 id="([^"]*)"', body) == anchors


def test_every_figure_is_drawn_once_and_says_where_its_numbers_are_from(whole):
    _, body = whole
    names = re.findall(r'<div id="figure-([a-z]+)"', body)
    assert names == ["curve", "methods", "buckets", "map", "sizes"]
    captions = re.findall(r'<p class="caption">([^<]*)</p>', body)
    assert all(re.search(r"From [\w.]+\.(json|npy)", one) for one in captions)


def test_it_tells_version_sampler_and_settings(whole):
    version, body = whole
    assert version in body
    assert "<td>training.sampler.name</td><td>esans</td>" in body
    assert "<td>seed</td><td>7</td>" in body


def test_the_table_holds_the_manifests_numbers(whole):
    _, body = whole
    found = re.search(r"<td>this model</td>(.*?)</tr>", body).group(1)
    assert re.findall(r">([\d.]+)<", found) == [
        *("0.5000", "0.5100", "0.5200", "0.5300", "0.5400", "0.5500", "0.5600"),
    ]


def test_a_title_with_markup_is_shown_not_run(whole):
    _, body = whole
    assert MARKUP not in body
    assert "<script>alert" not in body
    assert r"\u0026lt;script\u0026gt;alert" in body or "&lt;script&gt;alert" in body


def test_a_small_bucket_is_said_to_have_no_figure(whole):
    _, body = whole
    assert "No figure for tail, cold: fewer than 200 test items." in body


def test_a_bare_bundle_says_what_it_lacks(bare):
    told = re.findall(r'<p class="missing">([^<]*)</p>', bare)
    for words in ("training curve", "test metrics", "by popularity", "configuration"):
        assert any(words in one for one in told)
    assert any("used no cluster map" in one and "esans" in one for one in told)
    assert any("Not coloured by category" in one for one in told)
    assert re.findall(r'<div id="figure-([a-z]+)"', bare) == ["map"]
    assert f"{COUNT} of {COUNT} items" in bare
