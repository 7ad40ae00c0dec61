import signal
import time

import httpx

from tests.support.http_caller import until
from tests.support.service_process import start_service
from tests.support.synthetic_bundle import publish_handmade


def test_port_stays_open_during_shutdown_delay(tmp_path):
    publish_handmade(tmp_path)
    with start_service(tmp_path, ESANS_SHUTDOWN_DELAY_S="600") as (client, lines):
        until(lambda: client.get("/readyz").status_code == 200, limit_s=30)
        client.process.send_signal(signal.SIGTERM)
        until(lambda: any(line["event"] == "draining" for line in lines), limit_s=30)
        for _ in range(10):  # the server checks its deadline ten times per second
            time.sleep(0.05)
            assert httpx.get(f"{client.base_url}/livez").status_code == 200
        assert not any(line["event"] == "closing" for line in lines)
