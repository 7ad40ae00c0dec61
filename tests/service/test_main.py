import socket
import subprocess
import sys

import pytest

from service.__main__ import listen
from tests.support.http_caller import until
from tests.support.service_process import ROOT, environment, run, served
from tests.support.synthetic_bundle import publish_handmade


def test_a_process_serves_follows_and_stops_in_peace(tmp_path):
    with served(tmp_path, ESANS_SERVICE_HOST="10.0.0.1", ESANS_PORT="tcp://x") as (
        client,
        lines,
    ):
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        version = publish_handmade(tmp_path)
        until(lambda: client.get("/readyz").status_code == 200)
        told = client.post("/retrieve", json={"user_id": "user-0", "k": 5}).json()
        assert told["bundle"] == version
        assert len(told["candidates"]) == 5
    assert lines[-1] == {"event": "exit", "status": 0}
    events = [line["event"] for line in lines]
    assert events[:2] == ["settings", "listening"]
    assert events.count("settings") == events.count("bundle is live") == 1
    assert any(line.get("route") == "/retrieve" for line in lines)


def test_it_stops_in_peace_before_anything_is_published(tmp_path):
    with served(tmp_path) as (_, lines):
        pass
    assert lines[-1] == {"event": "exit", "status": 0}


@pytest.mark.parametrize(
    ("arguments", "variables", "told"),
    [
        ([], {}, "ESANS_BUNDLES is not set"),
        (["--port", "http"], {"ESANS_BUNDLES": "x"}, "ESANS_HTTP_PORT: found 'http'"),
        (["--bundles", "x"], {"ESANS_HTTP_PROT": "1"}, "did you mean ESANS_HTTP_PORT?"),
        (
            ["--bundles", "x"],
            {"ESANS_POLL_INTERVAL_S": "soon"},
            "ESANS_POLL_INTERVAL_S: found 'soon'",
        ),
        (
            ["--bundles", "x"],
            {"ESANS_REDIS_URL": "http://:hush@h:1"},
            "ESANS_REDIS_URL: the add",
        ),
        (["--bundles", "x"], {"ESANS_REDIS_URL": "redis://:hush@h:x/0"}, "expected redis://"),
    ],
)
def test_a_setting_at_fault_stops_the_start_with_one_message(arguments, variables, told):
    status, errors, _ = run(*arguments, **variables)
    assert status == 2
    assert told in errors
    assert "Traceback" not in errors
    assert "hush" not in errors


def test_a_port_that_is_taken_is_told_without_a_traceback(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, errors, _ = run("--bundles", str(tmp_path), "--port", str(port))
    assert status == 1
    assert f"127.0.0.1:{port}: cannot listen" in errors
    assert "Traceback" not in errors


def test_an_answer_is_sent_at_once_and_not_held_back_for_an_acknowledgement():
    with listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()[:2]):
            accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_help_teaches_every_setting():
    status, _, out = run("--help")
    assert status == 0
    assert "ESANS_BODY_LIMIT_BYTES" in out
    assert "overrides" in out


def test_nothing_that_counts_threads_is_imported_before_they_are_set():
    check = "import sys, service.__main__; assert not {'numpy', 'faiss'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize(("chosen", "found"), [({}, "1"), ({"OMP_NUM_THREADS": "2"}, "2")])
def test_vector_libraries_get_one_thread_unless_told_otherwise(chosen, found):
    program = (
        "import os, service.__main__ as m\ntry: m.main(['--help'])\nfinally: "
        "print(os.environ['OMP_NUM_THREADS'])"
    )
    clean = {name: value for name, value in environment().items() if "THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=clean | chosen,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == found
