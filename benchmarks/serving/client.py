"""Minimal load generator for machines without wrk; prints JSON.

    python -m benchmarks.serving.client http://localhost:8000/retrieve BODIES 16 3

It is slower than wrk: its throughput is a lower bound.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np


def main() -> None:
    """Send load; print the result as JSON."""
    url, bodies, connections, seconds = sys.argv[1:]
    messages = [
        message(url, body) for body in Path(bodies).read_bytes().splitlines() if body.strip()
    ]
    print(json.dumps(asyncio.run(send_load(url, messages, int(connections), float(seconds)))))


def message(url: str, body: bytes) -> bytes:
    """Encode a request."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def send_load(
    url: str, messages: list[bytes], connections: int, seconds: float
) -> dict[str, float]:
    """Send requests over concurrent connections, one request at a time on each."""
    begin = time.perf_counter()
    shared = cycle(messages)
    latencies: list[float] = []
    failures = await asyncio.gather(
        *(connection(url, shared, begin + seconds, latencies) for _ in range(connections))
    )
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3 if latencies else (0.0, 0.0)
    return {
        "requests": len(latencies),
        "duration_s": time.perf_counter() - begin,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "failed": sum(failures),
    }


async def connection(url: str, shared: Iterator[bytes], end: float, latencies: list[float]) -> int:
    """Send requests until `end`; return the number of responses other than 200."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    failed = 0
    while time.perf_counter() < end:
        begin = time.perf_counter()
        writer.write(next(shared))
        failed += await read_status(reader) != 200
        latencies.append(time.perf_counter() - begin)
    writer.close()
    return failed


async def read_status(reader: asyncio.StreamReader) -> int:
    """Read a response; return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length or 0))
    return int(head.split(b" ", 2)[1])


if __name__ == "__main__":
    main()
