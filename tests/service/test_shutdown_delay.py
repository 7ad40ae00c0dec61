import signal
import subprocess
import sys
import time

import httpx

from tests.support.http_caller import until
from tests.support.service_process import ROOT, start_service
from tests.support.synthetic_bundle import publish_handmade


def test_port_stays_open_during_shutdown_delay(tmp_path):
    publish_handmade(tmp_path)
    with start_service(tmp_path, ESANS_SHUTDOWN_DELAY_S="600") as (client, lines):
        until(lambda: client.get("/readyz").status_code == 200, limit_s=30)
        client.process.send_signal(signal.SIGTERM)
        until(lambda: any(line["event"] == "draining" for line in lines), limit_s=30)
        for _ in range(10):  # the server checks its deadline ten times per second
            time.sleep(0.05)
            assert httpx.get(f"{client.base_url}/livez", verify=False).status_code == 200
        assert not any(line["event"] == "closing" for line in lines)


HUNG = """
import threading
from service.logging_config import configure_logging
from service.server import exit_after

configure_logging("info")
exit_after(0.1)
threading.Thread(target=threading.Event().wait).start()  # joined at exit, for ever
"""


def test_process_with_hung_thread_ends_at_the_deadline():
    done = subprocess.run(
        [sys.executable, "-c", HUNG], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "shutdown deadline" in done.stdout
