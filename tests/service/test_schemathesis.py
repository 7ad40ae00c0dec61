import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.http_caller import until
from tests.support.service_process import start_service
from tests.support.synthetic_bundle import NOW, handmade_map, publish_handmade

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
TOKEN = "schemathesis"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Client of a service with two bundles, two maps and admin endpoints."""
    bundles = tmp_path_factory.mktemp("bundles")
    publish_handmade(bundles, clusters=handmade_map())
    later = NOW + timedelta(days=1)
    publish_handmade(bundles, now=later, seed=1, clusters=handmade_map(shift=1))
    quiet = {"ESANS_ACCESS_LOG": "false", "ESANS_ADMIN_TOKEN": TOKEN}
    with start_service(bundles, **quiet) as (client, lines):
        until(lambda: client.get("/readyz").status_code == 200, limit_s=30)
        yield client
    assert lines[-1] == {"event": "exit", "status": 0}
    assert [line for line in lines if line["event"] == "request failed"] == []


def run_schemathesis(client, folder, examples):
    """Send so many examples to each endpoint; return the report."""
    command = [
        sys.executable, "-m", "schemathesis.cli",
        "--config-file", str(HERE / "schemathesis.toml"),
        "run", f"{client.base_url}/openapi.json",
        "--header", f"Authorization: Bearer {TOKEN}",
        "--max-examples", str(examples), "--seed", "5", "--no-color",
        "--generation-database", "none",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=3_000,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.service.schemathesis_hooks",
                          "PYTHONPATH": str(HERE.parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, shorten(done.stdout + done.stderr)
    return done.stdout


def shorten(report):
    return "\n".join(line[:400] for line in report.splitlines() if line)


def count_cases(report):
    return int(re.search(r"(\d+) generated", report)[1])


def test_schema_examples_get_documented_responses(client, tmp_path):
    assert count_cases(run_schemathesis(client, tmp_path, examples=5)) > 300


@pytest.mark.slow
def test_5000_schema_examples_get_documented_responses(client, tmp_path):
    assert count_cases(run_schemathesis(client, tmp_path, examples=600)) >= 5_000
