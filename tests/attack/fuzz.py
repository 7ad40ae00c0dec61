"""Fuzzer of the HTTP front with raw bytes: `python -m tests.attack.fuzz --minutes 10`.

Random bytes, and mutations of valid requests: bytes changed, pieces repeated, dropped and swapped
between requests, sent in random pieces and often cut off. The service must not end, hang, respond
500 or log a traceback.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.attack.requests import INVALID_BODIES, MALFORMED
from tests.attack.target import GET, Target, post, reset_on_close, send_some
from tests.support.http_caller import until
from tests.support.service_process import start_service
from tests.support.synthetic_bundle import handmade_map, publish_handmade

NUM_ITEMS = 500
UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
CHUNKED = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
SEEDS = [
    GET,
    post("/retrieve", {"history": ["item-0", "item-2"], "k": 5}),
    post("/retrieve", {"user_id": "user-1", "filter": {"odd": ["true"]}}, UPGRADE),
    post("/retrieve", {"k": 2}, b"Expect: 100-continue\r\n"),
    post("/retrieve/batch", {"queries": [{"k": 3}, {"history": ["item-9"]}]}),
    post("/embed", {"users": [{"history": ["item-1"]}]}),
    post("/negatives", {"positives": ["item-3"], "easy": 2, "hard": 2}),
    post("/admin/reload", b"", b"Authorization: Bearer x\r\n"),
    CHUNKED + b'8\r\n{"k": 5}\r\n0\r\nX: y\r\n\r\n',
    b"GET /items/item-1/similar?k=3&exclude=item-2 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /clusters HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /metrics HTTP/1.0\r\n\r\n",
    *(data[:4_096] for data, _ in MALFORMED.values()),
    *(post("/retrieve", body[:4_096]) for body in INVALID_BODIES.values()),
]
TOKENS = [
    *(b"\r\n", b"\n", b"\0", b" ", b":", b"\r\n\r\n", b"0\r\n\r\n", b"\xff", b"%00", b"../", b"{"),
    *(b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(UPGRADE, b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"HTTP/1.0", b"CONNECT "),
    *(b"99999999999999999999", b"-1", b"ffffffff\r\n", b'"', b"]", b"\\u0000", b"null"),
]


def mutated(rng):
    """Return a few requests with random changes."""
    data = bytearray(b"".join(rng.choices(SEEDS, k=rng.choice([1, 1, 2, 5, 40]))))
    for _ in range(rng.choice([0, 1, 1, 2, 4, 8])):
        begin = rng.randrange(len(data) + 1)
        end = min(len(data), begin + int(rng.expovariate(1 / 20)))
        change = rng.randrange(5)
        if change == 0:
            data[begin:end] = rng.randbytes(end - begin)
        elif change == 1:
            del data[begin:end]
        elif change == 2:
            data[begin:begin] = data[begin:end] * rng.choice([1, 2, 200])
        elif change == 3:
            data[begin:begin] = rng.choice(TOKENS)
        else:
            data[begin:end] = rng.choice(TOKENS)
        data = data or bytearray(b"\r\n")
    return bytes(data)


def fuzz_connections(target, rng, deadline_s):
    """Send fuzzed bytes on one connection after another; return their number."""
    count = 0
    while time.monotonic() < deadline_s:
        data = rng.randbytes(rng.randrange(1, 2_000)) if rng.random() < 0.05 else mutated(rng)
        with target.connections(1) as (connection,):
            if rng.random() < 0.2:
                reset_on_close(connection)
            while data:
                size = rng.choice([1, 7, 100, 5_000, len(data)])
                send_some(connection, data[:size])
                data = data[size:]
                if rng.random() < 0.05:
                    break
            if rng.random() < 0.3:
                target.receive(connection, limit_s=1, silence_s=0.05)
        count += 1
        if count % 500 == 0:
            assert target.get("/livez") == '{"status":"alive"}'
    return count


def main():
    """Fuzz a service of its own for some minutes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        publish_handmade(folder, count=NUM_ITEMS, clusters=handmade_map(NUM_ITEMS))
        settings = {"ESANS_REQUEST_TIMEOUT_S": "2", "ESANS_ADMIN_TOKEN": "fuzz"}
        with start_service(folder, **settings) as (client, lines):
            until(lambda: client.get("/readyz").status_code == 200, limit_s=60)
            target = Target(client, folder)
            deadline_s = time.monotonic() + 60 * options.minutes
            count = fuzz_connections(target, random.Random(options.seed), deadline_s)
            failures = [line for line in lines if line.get("status") == 500 or "traceback" in line]
            requests = sum(line["event"] == "request" for line in lines)
            is_alive = target.get("/livez") == '{"status":"alive"}'
    sys.stdout.write(
        f"{count} connections, {requests} requests, {len(failures)} failures, "
        f"exit status {lines[-1]['status']}\n"
    )
    for line in failures[:5]:
        sys.stdout.write(f"{line}\n")
    return 1 if failures or not is_alive or lines[-1]["status"] else 0


if __name__ == "__main__":
    sys.exit(main())
