"""A small client for machines without wrk: asks in turn over some connections, prints JSON.

    python -m benchmarks.serving.client http://localhost:8000/retrieve BODIES 16 3

Slower than wrk, so throughput measured with it is a lower bound.
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
    """Ask for so many seconds, print what came of it."""
    url, bodies, connections, seconds = sys.argv[1:]
    messages = [
        message(url, body) for body in Path(bodies).read_bytes().splitlines() if body.strip()
    ]
    print(json.dumps(asyncio.run(ask(url, messages, int(connections), float(seconds)))))


def message(url: str, body: bytes) -> bytes:
    """Return a whole request."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def ask(
    url: str, messages: list[bytes], connections: int, seconds: float
) -> dict[str, float]:
    """Ask over some connections at once; each waits for its answer before it asks again."""
    begin = time.perf_counter()
    shared = cycle(messages)
    waits: list[float] = []
    failures = await asyncio.gather(
        *(connection(url, shared, begin + seconds, waits) for _ in range(connections))
    )
    p50, p99 = np.percentile(waits, [50, 99]) * 1e3 if waits else (0.0, 0.0)
    return {
        "requests": len(waits),
        "duration_s": time.perf_counter() - begin,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "failed": sum(failures),
    }


async def connection(url: str, shared: Iterator[bytes], end: float, waits: list[float]) -> int:
    """Ask until the end; return how many answers were no 200."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    failed = 0
    while time.perf_counter() < end:
        begin = time.perf_counter()
        writer.write(next(shared))
        failed += await status_of_answer(reader) != 200
        waits.append(time.perf_counter() - begin)
    writer.close()
    return failed


async def status_of_answer(reader: asyncio.StreamReader) -> int:
    """Read a whole answer; return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length or 0))
    return int(head.split(b" ", 2)[1])


if __name__ == "__main__":
    main()
