import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from service.logging_config import LineWriter
from tests.support.http_caller import until
from tests.support.service_process import ROOT, environment, start_service
from tests.support.synthetic_bundle import publish_handmade


@pytest.fixture
def pipe():
    """A reader and a writer; closed at the end, if open."""
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


def log_lines(writer, texts):
    """Log through a handler of its own."""
    for text in texts:
        writer.handle(logging.makeLogRecord({"msg": text}))


def read_all(descriptor):
    with open(descriptor, "rb", closefd=False) as stream:
        return stream.read()


@pytest.mark.parametrize("is_blocking", [True, False])
def test_writer_writes_all_lines_in_order(pipe, is_blocking):
    os.set_blocking(pipe[1], is_blocking)
    writer, received = LineWriter(pipe[1]), []
    reader = threading.Thread(target=lambda: received.append(read_all(pipe[0])))
    reader.start()
    texts = [f"line {number} {'x' * 90}" for number in range(5_000)]
    log_lines(writer, texts)
    writer.flush()
    os.close(pipe[1])
    reader.join(timeout=30)
    assert received[0].decode().splitlines() == texts
    assert writer.num_dropped == 0


def test_writer_with_full_pipe_drops_and_counts_lines(pipe):
    writer = LineWriter(pipe[1], limit_bytes=100_000)
    log_lines(writer, ["x" * 999] * 1_000)  # returns
    assert 700 < writer.num_dropped < 1_000


def test_writer_without_reader_counts_lines(pipe):
    os.close(pipe[0])
    writer = LineWriter(pipe[1])
    log_lines(writer, ["x"] * 10)
    writer.flush()
    assert writer.num_dropped == 10


def test_service_with_full_stdout_responds_and_stops(tmp_path):
    publish_handmade(tmp_path)
    command = [sys.executable, "-m", "service", "--bundles", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, bufsize=0
    )
    try:
        url = read_url(process.stdout)  # and nothing after that
        with httpx.Client(base_url=url) as client:
            until(lambda: client.get("/readyz").status_code == 200, limit_s=30)
            for _ in range(600):  # 64 KiB fit into the pipe
                assert client.get("/livez").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def read_url(stream):
    """Read lines of a log up to that which states the URL."""
    for line in iter(stream.readline, b""):
        if "url" in (fields := json.loads(line)):
            return fields["url"]
    raise AssertionError("the service has stopped")


def test_last_lines_are_written_at_exit(tmp_path):
    with start_service(tmp_path) as (client, lines):
        client.get("/livez")
    assert any(line["event"] == "closing" for line in lines)


def test_sighup_during_startup_is_ignored(tmp_path):
    command = [sys.executable, "-m", "service", "--bundles", str(tmp_path), "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE)
    try:
        until(lambda: is_ignored(process.pid, signal.SIGHUP), limit_s=30)
        for _ in range(10):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.1)
        assert read_url(process.stdout)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def is_ignored(pid, number):
    """Return whether a process ignores a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")]
    return bool(int(mask, 16) >> (number - 1) & 1)
