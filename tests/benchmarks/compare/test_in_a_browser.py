import shutil
import subprocess

import pytest

from benchmarks.compare.__main__ import main
from tests.support.study_tables import line, write_table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


def rendered_body(path, profile):
    """The DOM of the page after its scripts have run."""
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", f"--user-data-dir={profile}", "--virtual-time-budget=10000"),
        *("--window-size=1200,4000", "--dump-dom", path.as_uri()),
    ]
    browser = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return browser.stdout[browser.stdout.index("<body>") :]


def test_browser_renders_every_figure_of_the_report(tmp_path):
    folder = write_table(
        tmp_path / "compared",
        [
            line("uniform", 0.3, budget=256.0, negative_score=0.1, seconds_per_step=0.1),
            line("uniform", 0.35, negative_score=0.2, seconds_per_step=0.1),
            line("esans", 0.4, negative_score=0.3, seconds_per_step=0.1),
        ],
    )
    out = tmp_path / "report.html"
    assert main(["report", str(folder), "--out", str(out)]) == 0
    assert rendered_body(out, tmp_path / "profile").count('class="plot-container') == 4
