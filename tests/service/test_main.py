import socket
import subprocess
import sys

import pytest

from service.__main__ import listen
from tests.support.http_caller import until
from tests.support.service_process import ROOT, environment, run_to_exit, start_service
from tests.support.synthetic_bundle import publish_handmade


def test_process_serves_follows_and_exits_cleanly(tmp_path):
    with start_service(tmp_path, ESANS_SERVICE_HOST="10.0.0.1", ESANS_PORT="tcp://x") as (
        client,
        lines,
    ):
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        version = publish_handmade(tmp_path)
        until(lambda: client.get("/readyz").status_code == 200)
        result = client.post("/retrieve", json={"user_id": "user-0", "k": 5}).json()
        assert result["bundle"] == version
        assert len(result["candidates"]) == 5
    assert lines[-1] == {"event": "exit", "status": 0}
    events = [line["event"] for line in lines]
    assert events[:2] == ["settings", "listening"]
    assert events.count("settings") == events.count("bundle is live") == 1
    assert any(line.get("route") == "/retrieve" for line in lines)


def test_process_without_bundle_exits_cleanly(tmp_path):
    with start_service(tmp_path) as (_, lines):
        pass
    assert lines[-1] == {"event": "exit", "status": 0}


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ([], {}, "ESANS_BUNDLES is not set"),
        (["--port", "http"], {"ESANS_BUNDLES": "x"}, "ESANS_HTTP_PORT: found 'http'"),
        (["--bundles", "x"], {"ESANS_HTTP_PROT": "1"}, "did you mean ESANS_HTTP_PORT?"),
        (
            ["--bundles", "x"],
            {"ESANS_POLL_INTERVAL_S": "soon"},
            "ESANS_POLL_INTERVAL_S: found 'soon'",
        ),
        (["--bundles", "x"], {"ESANS_REDIS_URL": "http://:hush@h:1"}, "ESANS_REDIS_URL: "),
        (["--bundles", "x"], {"ESANS_REDIS_URL": "redis://:hush@h:x/0"}, "expected redis://"),
    ],
)
def test_invalid_setting_exits_with_single_message(arguments, variables, message):
    status, errors, _ = run_to_exit(*arguments, **variables)
    assert status == 2
    assert message in errors
    assert "Traceback" not in errors
    assert "hush" not in errors


def test_port_in_use_is_reported_without_traceback(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        status, errors, _ = run_to_exit("--bundles", str(tmp_path), "--port", str(port))
    assert status == 1
    assert f"127.0.0.1:{port}: cannot listen" in errors
    assert "Traceback" not in errors


def test_accepted_connections_disable_nagle():
    with listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()[:2]):
            accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_help_lists_settings():
    status, _, out = run_to_exit("--help")
    assert status == 0
    assert "ESANS_BODY_LIMIT_BYTES" in out
    assert "overrides" in out


def test_import_of_main_loads_no_numeric_library():
    check = "import sys, service.__main__; assert not {'numpy', 'faiss'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize(("variables", "expected"), [({}, "1"), ({"OMP_NUM_THREADS": "2"}, "2")])
def test_omp_threads_default_to_1(variables, expected):
    program = (
        "import os, service.__main__ as m\ntry: m.main(['--help'])\nfinally: "
        "print(os.environ['OMP_NUM_THREADS'])"
    )
    clean = {name: value for name, value in environment().items() if "THREADS" not in name}
    completed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=clean | variables,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert completed.stdout.splitlines()[-1] == expected
