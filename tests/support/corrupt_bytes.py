"""A door before a real Redis that answers nonsense for a while."""

import socket
import threading
from contextlib import contextmanager, suppress

NONSENSE = {
    "a number that is none": b":abc\r\n",
    "a count that is none": b"*abc\r\n",
    "an empty list": b"*0\r\n",
    "a number": b":5\r\n",
    "no answer of Redis": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


class Garbler:
    """Passes on what is said, or `nonsense` instead of every answer while that is set."""

    def __init__(self, target):
        self.nonsense = None
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                asking, _ = self._listener.accept()
                answering = socket.socket(socket.AF_UNIX)
                answering.connect(str(self._target))
                for pump in ((asking, answering, False), (answering, asking, True)):
                    threading.Thread(target=self._pump, args=pump, daemon=True).start()

    def _pump(self, source, sink, is_answer):
        with suppress(OSError), source, sink:
            while said := source.recv(1 << 16):
                sink.sendall(self.nonsense if is_answer and self.nonsense else said)

    def close(self):
        # what accepts would not be woken by closing alone
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def garbling(server):
    garbler = Garbler(server.socket)
    try:
        yield garbler
    finally:
        garbler.close()
