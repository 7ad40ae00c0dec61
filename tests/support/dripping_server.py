"""A TCP server that accepts connections and answers with a byte at a time, never to the end."""

import socketserver
import threading
import time
from contextlib import contextmanager

PAUSE_S = 0.01
MAX_BYTES = 3_000  # ends a test whose client never gives up


class Dripping(socketserver.BaseRequestHandler):
    """Sends the start of a response that has no end."""

    def handle(self):
        for _ in range(MAX_BYTES):
            try:
                self.request.sendall(b"+")
            except OSError:
                return  # the client gave up
            time.sleep(PAUSE_S)
        self.server.is_exhausted = True


class DrippingServer(socketserver.ThreadingTCPServer):
    """Server on a free port.

    Attributes:
        is_exhausted: Whether a client stayed to the end.
    """

    daemon_threads = True
    block_on_close = False
    is_exhausted = False

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.server_address[1]}/0"


@contextmanager
def dripping_server():
    with DrippingServer(("127.0.0.1", 0), Dripping) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
