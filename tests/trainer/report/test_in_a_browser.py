import re
import shutil
import subprocess

import pytest

from tests.support.report_bundles import MARKUP, publish_complete
from trainer.__main__ import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BUTTONS = {"Zoom", "Pan", "Reset axes", "Download plot as a PNG"}  # none uploads
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


def rendered_body(path, profile):
    """Body of the page after its scripts ran."""
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", f"--user-data-dir={profile}", "--virtual-time-budget=10000"),
        *("--window-size=1200,4000", "--dump-dom", path.as_uri()),
    ]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return completed.stdout[completed.stdout.index("<body>") :]


def test_browser_renders_every_figure_of_run_report(tmp_path):
    publish_complete(tmp_path / "bundles")
    out = tmp_path / "report.html"
    assert main(["report", "--bundles", str(tmp_path / "bundles"), "--out", str(out)]) == 0
    dom = rendered_body(out, tmp_path / "profile")
    assert dom.count('class="plot-container') == 6
    assert dom.count('class="point') > 2 * 60  # every item in both panels
    assert dom.count("<script") == 6  # those of plotly, and none from a title
    assert MARKUP not in dom
    assert set(re.findall(r'data-title="([^"]*)"', dom)) == BUTTONS
