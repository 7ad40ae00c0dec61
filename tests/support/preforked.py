"""Starts `python -m MODULE` as a fork of a process that has imported what the module needs.

Imports are most of a start: 1 s of CPU for the service, 4 s for the trainer. A fork has its own
process id, environment, output and exit status. A test of the start itself uses `subprocess`.

    python -m tests.support.preforked SOCKET MODULE ...
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile

ROOT = Path(__file__).parents[2]
IMPORTS = {
    "service": ("service.app", "service.server", "uvloop"),
    "trainer": ("torch._dynamo", "torch.onnx", "trainer.pipeline", "trainer.report.run_report"),
}
NUMBER = struct.Struct("i")  # process id, then exit status
MAX_REQUEST_BYTES = 65_536
DEADLINE_S = 300


class Forked:
    """A running command, with the part of the interface of `subprocess.Popen` that tests use."""

    def __init__(self, module, arguments, environment, stdout, stderr):
        read, write = os.pipe()
        self._status = os.fdopen(read, "rb", buffering=0)
        environment = dict(os.environ) if environment is None else environment
        request = json.dumps([module, arguments, environment]).encode()
        template = "service" if module == "service" else "trainer"
        socket.send_fds(connect(template), [request], [stdout, stderr, write])
        os.close(write)
        (self.pid,) = NUMBER.unpack(self._status.read(NUMBER.size))
        self.returncode, self.stdout = None, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.stdout:
            self.stdout.close()
        self.wait()

    def wait(self, timeout=None):
        if self.returncode is None:
            poll = select.poll()  # select.select rejects descriptors from 1024 on
            poll.register(self._status)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            (self.returncode,) = NUMBER.unpack(self._status.read(NUMBER.size))
            self._status.close()
        return self.returncode

    def poll(self):
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=DEADLINE_S):
        """Return what it writes until it exits; it is killed at the timeout."""
        timer = threading.Timer(timeout, self.kill)
        timer.start()
        with self.stdout:
            output = self.stdout.read()
        self.wait()
        timer.cancel()
        timer.join()
        return output, None


def start(module, *arguments, environment=None, stderr=None):
    """Start a command whose standard output, and errors if that is `STDOUT`, are a text pipe."""
    read, write = os.pipe()
    errors = write if stderr == subprocess.STDOUT else sys.__stderr__.fileno()
    process = Forked(module, arguments, environment, write, errors)
    os.close(write)
    process.stdout = os.fdopen(read, encoding="utf-8")
    return process


def run(module, *arguments, environment=None, timeout=DEADLINE_S):
    """Run a command until it exits; return exit status, standard error and standard output."""
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        streams = stdout.fileno(), stderr.fileno()
        with Forked(module, arguments, environment, *streams) as process:
            try:
                status = process.wait(timeout)
            finally:
                process.kill()  # at the timeout
        texts = [stream.seek(0) or stream.read() for stream in (stderr, stdout)]
    return status, *texts


@cache
def connect(template):
    """Start the process that is forked; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.support.preforked", str(theirs.fileno())]
    process = subprocess.Popen(
        [*command, *IMPORTS[template]],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    theirs.close()

    def stop():
        ours.close()
        process.wait()

    atexit.register(stop)
    return ours


def serve(requests):
    """Fork for each request; returns in the fork, with the request, and None at the end."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 3)
        if not request:
            return None
        if not os.fork():
            requests.close()
            if pid := os.fork():
                report(pid, *descriptors)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return become(json.loads(request), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def reap(*_):
    """Wait for the parents of commands that have ended, which adds their CPU time to ours."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def report(pid, stdout, stderr, status):
    """Write the process id and, once it has ended, its exit status; then exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(stdout)
    os.close(stderr)
    os.write(status, NUMBER.pack(pid))
    _, ended = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        os.write(status, NUMBER.pack(os.waitstatus_to_exitcode(ended)))
    os._exit(0)


def become(request, stdout, stderr, status):
    """Take over output and environment of a request; return its module and arguments."""
    module, arguments, environment = request
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for descriptor in (stdout, stderr, status):
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    return module, arguments


if __name__ == "__main__":
    for module in sys.argv[2:]:
        importlib.import_module(module)
    assert threading.active_count() == 1  # which could hold a lock at a fork
    gc.collect()
    gc.freeze()  # forks share the memory of all that is imported
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    signal.signal(signal.SIGCHLD, reap)
    accepted = serve(socket.socket(fileno=int(sys.argv[1])))
    if accepted:
        sys.argv = [accepted[0], *accepted[1]]
        runpy.run_module(accepted[0], run_name="__main__", alter_sys=True)
