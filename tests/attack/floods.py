"""Attacks with many connections or endless input; each is a function of a `Target`."""

import random
import resource
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

from tests.attack.fuzz import fuzz_connections
from tests.attack.target import GET, MIB, post, reset_on_close, send_some

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def endless_trailer(target):
    """A chunked request whose one trailer never ends."""
    target.flood(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + CHUNKED + b"0\r\nX: ", b"v" * MIB, 300)


def many_trailers(target):
    """A chunked request with millions of trailers."""
    target.flood(
        b"POST /retrieve HTTP/1.1\r\nHost: x\r\n" + CHUNKED + b"0\r\n", b"X: v\r\n" * 175_000, 60
    )


def endless_chunk_extension(target):
    """A chunk whose extension never ends."""
    target.flood(b"POST /retrieve HTTP/1.1\r\nHost: x\r\n" + CHUNKED + b"1;x=", b"v" * MIB, 300)


def endless_blank_lines(target):
    """Blank lines between requests."""
    target.flood(GET, b"\r\n" * (MIB // 2), 200)


def endless_head(target):
    """Headers without end."""
    target.flood(b"GET /livez HTTP/1.1\r\n", b"X: v\r\n" * 175_000, 60)


def endless_body(target):
    """A chunked body without end."""
    chunk = b"%x\r\n%b\r\n" % (MIB, b" " * MIB)
    target.flood(b"POST /retrieve HTTP/1.1\r\nHost: x\r\n" + CHUNKED, chunk, 300)


def tiny_chunks(target):
    """A body of chunks of one byte, on 16 connections."""
    head = b"POST /retrieve HTTP/1.1\r\nHost: x\r\n" + CHUNKED
    target.parallel(16, lambda: target.flood(head, b"1\r\n \r\n" * 100_000, 2))


def pipelined_requests(target):
    """10 connections that pipeline 13,000 requests each."""
    target.parallel(10, lambda: target.exchange(GET * 13_000, limit_s=20))


def pipelined_unread(target):
    """50 connections that pipeline 6,000 requests and read nothing."""
    with target.connections(50) as connections:
        waiting = [*connections]
        target.parallel(50, lambda: send_some(waiting.pop(), GET * 6_000))
        time.sleep(3)


def pipelined_behind_slow(target):
    """Small requests pipelined behind an expensive one, then the client leaves."""
    slow = post("/retrieve", {"history": [f"item-{row % 900}" for row in range(9_000)]})
    for _ in range(30):
        with target.connections(1) as (connection,):
            connection.sendall(slow + GET * 31)


def invalid_large_json(target):
    """50 clients send 1 MiB of empty lists each."""
    body = b'{"history": [' + b"[]," * 340_000 + b"[]]}"
    target.parallel(50, lambda: target.exchange(post("/retrieve", body), limit_s=60))


def valid_large_json(target):
    """50 clients send a batch request of nearly 1 MiB each."""
    body = {"queries": [{"exclude": [f"x{row}" for row in range(400)]} for _ in range(250)]}
    target.parallel(50, lambda: target.exchange(post("/retrieve/batch", body), limit_s=60))


def deep_json(target):
    """Lists nested 500,000 deep."""
    body = b'{"history": ' + b"[" * 500_000 + b"]" * 500_000 + b"}"
    target.parallel(8, lambda: target.exchange(post("/retrieve", body)))


def long_numbers(target):
    """A number of a million digits, as integer, float and exponent."""
    for number in (b"1" * MIB, b"0." + b"1" * (MIB // 2), b"1e" + b"9" * (MIB // 2)):
        target.exchange(post("/retrieve", b'{"k": ' + number[:1_000_000] + b"}"))


def slow_readers(target):
    """16 clients read a large batch response at 250 KB/s."""
    queries = [{"k": 1_000, "include": ["attributes"]}] * 256
    request = post("/retrieve/batch", {"queries": queries})
    target.parallel(16, lambda: read_slowly(target, request, 250_000, limit_s=15))


def stalled_readers(target):
    """64 clients ask for large responses and read nothing."""
    request = post("/retrieve/batch", {"queries": [{"k": 1_000}] * 256})
    with target.connections(64) as connections:
        for connection in connections:
            send_some(connection, request)
        time.sleep(8)


def dripping_readers(target):
    """16 clients read 2 KB/s of pipelined documents."""
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 300
    target.parallel(16, lambda: read_slowly(target, request, 2_000, limit_s=10))


def huge_negatives(target):
    """16 clients draw a million negatives each."""
    body = {"positives": ["item-0"] * 500, "easy": 1_000, "hard": 1_000}
    target.parallel(16, lambda: target.exchange(post("/negatives", body), limit_s=60))


def slow_heads(target):
    """500 connections send their head byte by byte."""
    with target.connections(500) as connections:
        for byte in b"GET /livez HTTP":
            for connection in connections:
                send_some(connection, bytes([byte]))
            time.sleep(0.2)


def half_bodies(target):
    """500 connections announce a body and send half of it."""
    with target.connections(500) as connections:
        for connection in connections:
            send_some(connection, post("/retrieve", {"k": 5})[:-4])
        time.sleep(3)


def withheld_continue(target):
    """300 connections wait for 100-continue and then send nothing."""
    head = (
        b"POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    )
    with target.connections(300) as connections:
        for connection in connections:
            send_some(connection, head)
        time.sleep(2)


def idle_connections(target):
    """2,000 connections that send nothing."""
    with target.connections(2_000):
        time.sleep(3)


def connection_churn(target):
    """5,000 connections that are closed at once, half of them by a reset."""
    for number in range(5_000):
        with target.connections(1) as (connection,):
            if number % 2:
                reset_on_close(connection)


def resets_in_requests(target):
    """Clients that reset the connection in the middle of a request or of its response."""
    request = post("/retrieve", {"k": 1_000, "include": ["attributes"]})
    for number in range(600):
        with target.connections(1) as (connection,):
            reset_on_close(connection)
            send_some(connection, request[: len(request) - number % 3])


def half_closed_clients(target):
    """Clients that close their side after the request still get a response or an end."""
    for _ in range(100):
        with target.connections(1) as (connection,):
            connection.sendall(post("/retrieve", {"k": 5}, b"Connection: close\r\n"))
            connection.shutdown(socket.SHUT_WR)
            target.receive(connection)


def long_searches(target):
    """64 clients send histories of 10,000 items."""
    body = {"history": [f"item-{row % 1_000}" for row in range(10_000)], "k": 1_000}
    target.parallel(64, lambda: target.exchange(post("/retrieve", body), limit_s=60))


def wide_filters(target):
    """32 clients send filters of many values."""
    body = {"filter": {"tags": [f"tag {row}" for row in range(1_000)]}, "k": 1_000}
    target.parallel(32, lambda: target.exchange(post("/retrieve", body) * 20, limit_s=60))


def long_query_strings(target):
    """Similar items with 60 KB of exclusions."""
    path = "/items/item-1/similar?" + "&".join(f"exclude=i{row}" for row in range(990))
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    target.parallel(16, lambda: target.exchange(request * 20, limit_s=60))


def wide_embeddings(target):
    """Embeddings of 256 users with long histories."""
    users = [{"history": [f"item-{row % 900}" for row in range(300)]}] * 256
    target.parallel(16, lambda: target.exchange(post("/embed", {"users": users}), limit_s=60))


def wrong_tokens(target):
    """3,000 guesses at the admin token."""
    for guess in (b"a", b"x" * 100_000, b"\xff\xfe", b"attac", b"attack2"):
        head = b"Authorization: Bearer " + guess + b"\r\n"
        received = target.exchange(post("/admin/reload", b"", head) * 20)
        assert b" 200 " not in received
    requests = [
        post("/admin/reload", b"", b"Authorization: Bearer %d\r\n" % n) for n in range(3_000)
    ]
    assert b" 200 " not in target.exchange(b"".join(requests), limit_s=30)


def many_paths(target):
    """Thousands of paths and methods must not become labels of metrics."""
    before = len(target.get("/metrics"))
    requests = [
        b"%b /%d HTTP/1.1\r\nHost: x\r\n\r\n" % (random.choice([b"GET", b"PURGE", b"LOCK"]), number)
        for number in range(3_000)
    ]
    target.exchange(b"".join(requests), limit_s=30)
    assert len(target.get("/metrics")) < before + 10_000


def signals(target):
    """500 SIGHUPs."""
    for _ in range(500):
        target.process.send_signal(signal.SIGHUP)
        time.sleep(0.002)


def exhausted_files(target):
    """No file descriptor is left for a while."""
    before = resource.prlimit(target.process.pid, resource.RLIMIT_NOFILE)
    num_open = len(list(Path(f"/proc/{target.process.pid}/fd").iterdir()))
    resource.prlimit(target.process.pid, resource.RLIMIT_NOFILE, (num_open + 20, before[1]))
    try:
        with target.connections(200):
            time.sleep(2)
    finally:
        resource.prlimit(target.process.pid, resource.RLIMIT_NOFILE, before)


def random_bytes(target):
    """Random and mutated requests for some seconds; `tests.attack.fuzz` does so for minutes."""
    fuzz_connections(target, random.Random(7), time.monotonic() + 8)


def read_slowly(target, request, bytes_per_s, limit_s):
    """Send a request and read its response at a limited rate."""
    with target.connections(1) as (connection,):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        send_some(connection, request)
        deadline = time.monotonic() + limit_s
        with suppress(OSError):
            while time.monotonic() < deadline and connection.recv(bytes_per_s // 20):
                time.sleep(0.05)
