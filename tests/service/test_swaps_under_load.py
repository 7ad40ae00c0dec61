"""A service under load on 16 connections while its bundle is swapped repeatedly."""

import asyncio
import json
import sys
from contextlib import suppress
from datetime import timedelta

import pytest

from index.bundle.reader import open_bundle
from index.bundle.registry import BundleRegistry
from index.search.query import Query
from index.search.retriever import Retriever
from tests.support.http_caller import until
from tests.support.service_process import start_service
from tests.support.synthetic_bundle import NOW, handmade_map, publish_handmade, retrieve_single

CONNECTIONS = 16
NUM_WARMUP_SWAPS = 4  # before memory is compared: allocators and caches fill up
MEMORY_TOLERANCE = 1.15
QUERIES = (
    {"history": ["both-0", "both-2"], "k": 12},
    {"user_id": "user-0", "k": 12},
    {"user_id": "unknown", "k": 12},
)


def publish(bundles, number):
    """Publish one of two kinds of bundle: same ids, other vectors, other results."""
    kind = number % 2
    return publish_handmade(
        bundles,
        now=NOW + timedelta(minutes=number),
        count=2_000 + kind,
        seed=kind,
        prefix="both",
        clusters=handmade_map(2_000 + kind, prefix="both", shift=kind),
    )


def compute_expected(folder):
    """Return a bundle's result of each query: ids and rounded scores."""
    retriever, expected = Retriever(open_bundle(folder)), []
    for query in QUERIES:
        result = retrieve_single(retriever, Query(**query))
        scores = [None] * len(result.item_ids) if result.scores is None else result.scores
        pairs = zip(result.item_ids, scores, strict=True)
        expected.append([(item_id, round_score(score)) for item_id, score in pairs])
    return expected


def round_score(score):
    return None if score is None else round(float(score), 4)


async def retrieve_until(stopping, client, responses):
    """Send requests on one connection until stopped; keep all responses."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    number = len(responses)
    while not stopping.is_set():
        number = (number + 1) % len(QUERIES)
        body = json.dumps(QUERIES[number]).encode()
        head = f"POST /retrieve HTTP/1.1\r\nHost: esans\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        response_head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(response_head.split(b"content-length: ")[1].split(b"\r\n")[0])
        status = response_head.split(b" ")[1]
        responses.append((number, status, await reader.readexactly(length)))
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def swap_under_load(client, bundles, count):
    """Swap bundles under load; return responses, expected results and memory by swap."""
    stopping, responses, expected, sizes = asyncio.Event(), [], {}, []
    current = BundleRegistry(bundles).current()
    expected[current.name] = compute_expected(current)
    tasks = [
        asyncio.create_task(retrieve_until(stopping, client, responses)) for _ in range(CONNECTIONS)
    ]
    for number in range(1, count + 1):
        version = await asyncio.to_thread(publish, bundles, number)
        expected[version] = await asyncio.to_thread(compute_expected, bundles / version)
        await asyncio.to_thread(wait_for, client, version)
        target = len(responses) + 4 * CONNECTIONS
        while len(responses) < target:  # noqa: ASYNC110  # there is no event
            await asyncio.sleep(0.005)
        sizes.append(pss_bytes(client.process.pid))
    stopping.set()
    await asyncio.gather(*tasks)
    return responses, expected, sizes


def wait_for(client, version):
    until(lambda: client.get("/readyz").json().get("bundle") == version, limit_s=60)


def pss_bytes(pid):
    """Return the proportional set size of a process."""
    with open(f"/proc/{pid}/smaps_rollup") as stream:  # noqa: PTH123  # not a file on disk
        lines = dict(line.split(":") for line in stream.readlines()[1:])
    return int(lines["Pss"].split()[0]) * 1_024


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_swaps_under_load_fail_nothing_and_leak_nothing(tmp_path, count):
    publish(tmp_path, 0)
    with start_service(tmp_path, ESANS_ACCESS_LOG="false") as (client, _):
        wait_for(client, BundleRegistry(tmp_path).current().name)
        responses, expected, sizes = asyncio.run(swap_under_load(client, tmp_path, count))
    for number, status, body in responses:
        assert status == b"200", body
        result = json.loads(body)
        candidates = [
            (candidate["item_id"], round_score(candidate["score"]))
            for candidate in result["candidates"]
        ]
        assert candidates == expected[result["bundle"]][number]
    assert len({json.loads(body)["bundle"] for _, _, body in responses}) == count + 1
    sizes_mib = [size >> 20 for size in sizes]
    sys.stdout.write(f"{count} swaps, {len(responses)} responses, MiB {sizes_mib}\n")
    assert sizes[-1] < MEMORY_TOLERANCE * sizes[NUM_WARMUP_SWAPS - 1], sizes_mib
