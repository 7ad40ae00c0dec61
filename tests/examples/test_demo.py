import os
import signal
import subprocess
import sys

import httpx
import pytest

from examples.demo import item_titles
from tests.support.http_caller import until
from tests.support.service_process import ROOT
from tests.support.synthetic_bundle import publish_handmade
from tests.support.training_shops import items, write_shop
from trainer.data.dataset import load_dataset

SERVE = """
import sys
from pathlib import Path
from examples.demo import HOME, exit_on_signals, serving, wait_for_signal
HOME.mkdir()
exit_on_signals()
with serving(Path(sys.argv[1]), 0) as url:
    print(url, flush=True)
    wait_for_signal()
"""


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_demo_ends_its_service_on_signal(tmp_path, number):
    publish_handmade(tmp_path / "bundles")
    command = [sys.executable, "-c", SERVE, str(tmp_path / "bundles")]
    with subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as demo:  # fmt: skip
        demo.stdout.readline()  # the command
        url = demo.stdout.readline().strip()
        assert httpx.get(f"{url}/readyz").status_code == 200
        demo.send_signal(number)
        assert demo.stderr.read() == ""
        assert demo.wait(timeout=60) in (0, 128 + number)  # the latter: before it waited
    until(lambda: is_refused(url))
    assert "Traceback" not in (tmp_path / ".demo" / "service.log").read_text()


def test_demo_titles_fall_back_to_ids(tmp_path):
    shop = write_shop(tmp_path, sold=items(title=["A", None, "", "D"]))
    assert item_titles(load_dataset(shop)) == {"a": "A", "b": "b", "c": "c", "d": "D"}


def is_refused(url):
    try:
        httpx.get(url)
    except httpx.ConnectError:
        return True
    return False
