"""The service under attack, and raw connections to it."""

import json
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from tests.support.service_process import address, receive_all

MIB = 1 << 20
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


def post(path, body, headers=b""):
    """Return the bytes of a request; the body is JSON or bytes."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    head = b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n"
    return head % (path.encode(), headers, len(body)) + body


def send_some(connection, data):
    """Send what the server takes within a second."""
    connection.settimeout(1)
    with suppress(OSError):
        connection.sendall(data)


def reset_on_close(connection):
    """Make the connection end with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Target:
    """A running service.

    Attributes:
        process: the service.
        folder: its bundles.
    """

    def __init__(self, client, folder):
        self.process, self.folder = client.process, folder
        self._client = client

    def get(self, path):
        """Return the text of a response."""
        return self._client.get(path, timeout=60).text

    @contextmanager
    def connections(self, count):
        """Open connections; they are closed at the end."""
        opened = []
        try:
            for _ in range(count):
                with suppress(OSError):
                    opened.append(socket.create_connection(address(self._client), timeout=30))
            yield opened if count > 1 else opened[:1] or [socket.socket()]
        finally:
            for connection in opened:
                connection.close()

    def exchange(self, data, limit_s=10, silence_s=2):
        """Send bytes while reading; return what arrives until the server is silent or closes."""
        with self.connections(1) as (connection,), ThreadPoolExecutor(1) as pool:
            sent = pool.submit(self._send, connection, data)
            received = self.receive(connection, limit_s, silence_s)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            sent.result()
        return received

    def receive(self, connection, limit_s=10, silence_s=2):
        """Return what arrives until the end or a silence; of long responses the first 4 MiB."""
        received, deadline = b"", time.monotonic() + limit_s
        connection.settimeout(silence_s)
        with suppress(OSError):
            while time.monotonic() < deadline and (chunk := connection.recv(1 << 16)):
                received += chunk if len(received) < 4 * MIB else b""
        return received

    def flood(self, head, repeated, count):
        """Send a head and then the same bytes over and over, until the server closes."""
        with self.connections(1) as (connection,):
            with suppress(OSError):
                connection.sendall(head)
                for _ in range(count):
                    connection.sendall(repeated)
            with suppress(OSError):
                receive_all(connection)

    def parallel(self, count, attack):
        """Run an attack in threads."""
        with ThreadPoolExecutor(count) as pool:
            for future in [pool.submit(attack) for _ in range(count)]:
                future.result()

    def _send(self, connection, data):
        with suppress(OSError):
            connection.sendall(data)
