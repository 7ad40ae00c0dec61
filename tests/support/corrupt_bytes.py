"""Proxy in front of a real Redis that can return invalid replies."""

import socket
import threading
from contextlib import contextmanager, suppress

INVALID_REPLIES = {
    "an invalid integer": b":abc\r\n",
    "an invalid array length": b"*abc\r\n",
    "an empty array": b"*0\r\n",
    "an integer": b":5\r\n",
    "an HTTP response": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


class CorruptingProxy:
    """Forwards requests and replies; replaces each reply by `reply` while that is set."""

    def __init__(self, target):
        self.reply = None
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                upstream = socket.socket(socket.AF_UNIX)
                upstream.connect(str(self._target))
                for pump in ((client, upstream, False), (upstream, client, True)):
                    threading.Thread(target=self._pump, args=pump, daemon=True).start()

    def _pump(self, source, sink, is_reply):
        with suppress(OSError), source, sink:
            while data := source.recv(1 << 16):
                sink.sendall(self.reply if is_reply and self.reply else data)

    def close(self):
        # close alone does not wake up accept
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def corrupting_proxy(server):
    proxy = CorruptingProxy(server.socket)
    try:
        yield proxy
    finally:
        proxy.close()
