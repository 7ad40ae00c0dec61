"""Runs the service as a separate process."""

import json
import os
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.support.http_caller import until
from tests.support.preforked import run, start

ROOT = Path(__file__).parents[2]


def environment(**variables):
    """Return the environment without settings of the service, plus these variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ESANS_")}
    return clean | variables


def run_to_exit(*arguments, **variables):
    """Run the service until it exits; return exit status, stderr and stdout."""
    return run("service", *arguments, environment=environment(**variables), timeout=60)


def read_lines(pipe, lines):
    """Append the log lines of a service to a list until it exits."""
    for line in pipe:
        lines.append(json.loads(line))


def address(client):
    """Return host and port of a client's service."""
    return client.base_url.host, client.base_url.port


def connect(client):
    """Open a connection to a client's service."""
    return socket.create_connection(address(client), timeout=30)


def receive_all(connection):
    """Return what arrives until the server closes or resets the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65_536):
            received += chunk
    return received


@contextmanager
def start_service(bundles, **variables):
    """Start the service on a free port, yield a client and its log lines, then send SIGTERM."""
    defaults = {
        "ESANS_POLL_INTERVAL_S": "0.05",
        "ESANS_QUEUE_TIMEOUT_MS": "60000",  # a busy machine may stop the tests for seconds
    }
    settings = environment(**{**defaults, **variables})
    options = ("--bundles", str(bundles), "--port", "0")
    with start("service", *options, environment=settings) as process:
        lines = []
        reader = threading.Thread(target=read_lines, args=(process.stdout, lines), daemon=True)
        reader.start()  # a full pipe would block the service
        try:
            (url,) = until(
                lambda: [line["url"] for line in lines if line["event"] == "listening"], 60
            )
            # without `verify` it reads no certificates, which takes as long as many requests
            with httpx.Client(base_url=url, verify=False) as client:
                client.process = process
                yield client, lines
        finally:
            process.send_signal(signal.SIGTERM)
            reader.join(timeout=60)
            lines.append({"event": "exit", "status": process.wait(timeout=30)})
