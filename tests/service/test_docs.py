import re
import shutil
import subprocess

import pytest

from tests.support.service_process import start_service


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Client of a service process without a bundle: /docs needs none."""
    with start_service(tmp_path_factory.mktemp("bundles")) as (client, lines):
        yield client
    assert lines[-1] == {"event": "exit", "status": 0}


def test_docs_page_loads_only_local_resources(client):
    page = client.get("/docs").raise_for_status().text
    resources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(resources) >= 3
    for path in resources:
        assert path.startswith("/"), f"{path} is on another host"
        client.get(path).raise_for_status()


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine")
def test_docs_page_in_browser_lists_endpoints(client, tmp_path):
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync"
    options += " --disable-background-networking --disable-component-update --disable-quic"
    command = ["chromium", *options.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=20000", "--dump-dom", f"{client.base_url}/docs"]
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
