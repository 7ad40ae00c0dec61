import re
import shutil
import subprocess
import sys

import httpx
import pytest

from tests.support.http_caller import until


@pytest.fixture
def url(tmp_path):
    """URL of a service process without a bundle: /docs needs none."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "service", "--bundles", str(tmp_path), "--port", "0"]
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream)
    try:
        until(lambda: re.search(r'"url": ?"(http[^"]+)"', log.read_text()))
        yield re.search(r'"url": ?"(http[^"]+)"', log.read_text()).group(1)
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_docs_page_loads_only_local_resources(url):
    page = httpx.get(f"{url}/docs").raise_for_status().text
    resources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(resources) >= 3
    for path in resources:
        assert path.startswith("/"), f"{path} is on another host"
        httpx.get(f"{url}{path}").raise_for_status()


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine")
def test_docs_page_in_browser_lists_endpoints(url, tmp_path):
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync"
    options += " --disable-background-networking --disable-component-update --disable-quic"
    command = ["chromium", *options.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=20000", "--dump-dom", f"{url}/docs"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    for endpoint in (
        "/retrieve",
        "/retrieve/batch",
        "/embed",
        "/negatives",
        "/clusters",
        "/readyz",
        "/bundle",
        "/metrics",
    ):
        assert f'data-path="{endpoint}"' in done.stdout
