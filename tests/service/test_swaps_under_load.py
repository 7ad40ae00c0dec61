"""A real service, asked on 16 connections at once while its bundle changes again and again."""

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
from tests.support.service_process import served
from tests.support.synthetic_bundle import NOW, handmade_map, publish_handmade, retrieve_single

CONNECTIONS = 16
WARM_SWAPS = 4  # before memory is compared: allocators and caches take their share
LEEWAY = 1.15
QUESTIONS = (
    {"history": ["both-0", "both-2"], "k": 12},
    {"user_id": "user-0", "k": 12},
    {"user_id": "nobody", "k": 12},
)


def publish(bundles, number):
    """Publish one of two kinds of bundle: the same ids, other vectors, so other answers."""
    kind = number % 2
    return publish_handmade(
        bundles,
        now=NOW + timedelta(minutes=number),
        count=2_000 + kind,
        seed=kind,
        prefix="both",
        clusters=handmade_map(2_000 + kind, prefix="both", shift=kind),
    )


def truth_of(folder):
    """What a bundle answers to each question: ids and rounded scores."""
    retriever, told = Retriever(open_bundle(folder)), []
    for one in QUESTIONS:
        answer = retrieve_single(retriever, Query(**one))
        scores = [None] * len(answer.item_ids) if answer.scores is None else answer.scores
        told.append(
            [(one, rounded(score)) for one, score in zip(answer.item_ids, scores, strict=True)]
        )
    return told


def rounded(score):
    return None if score is None else round(float(score), 4)


async def ask_until(over, client, answers):
    """Ask on one connection until told to stop; every answer is kept, whatever it is."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    place = len(answers)
    while not over.is_set():
        place = (place + 1) % len(QUESTIONS)
        body = json.dumps(QUESTIONS[place]).encode()
        head = f"POST /retrieve HTTP/1.1\r\nHost: esans\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        told = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(told.split(b"content-length: ")[1].split(b"\r\n")[0])
        answers.append((place, told.split(b" ")[1], await reader.readexactly(length)))
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def swap_under_load(client, bundles, count):
    """Swap so many bundles while all connections ask; return answers, truths and memory."""
    over, answers, truths, sizes = asyncio.Event(), [], {}, []
    current = BundleRegistry(bundles).current()
    truths[current.name] = truth_of(current)
    asking = [asyncio.create_task(ask_until(over, client, answers)) for _ in range(CONNECTIONS)]
    for number in range(1, count + 1):
        version = await asyncio.to_thread(publish, bundles, number)
        truths[version] = await asyncio.to_thread(truth_of, bundles / version)
        await asyncio.to_thread(wait_for, client, version)
        seen = len(answers)
        while len(answers) < seen + 4 * CONNECTIONS:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.005)
        sizes.append(pss_bytes(client.process.pid))
    over.set()
    await asyncio.gather(*asking)
    return answers, truths, sizes


def wait_for(client, version):
    until(lambda: client.get("/readyz").json().get("bundle") == version, limit_s=60)


def pss_bytes(pid):
    """Return the memory of a process, shared pages by their share."""
    with open(f"/proc/{pid}/smaps_rollup") as stream:  # noqa: PTH123  # no file of a disk
        lines = dict(line.split(":") for line in stream.readlines()[1:])
    return int(lines["Pss"].split()[0]) * 1_024


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_swaps_under_load_fail_mix_and_keep_nothing(tmp_path, count):
    publish(tmp_path, 0)
    with served(tmp_path, ESANS_ACCESS_LOG="false") as (client, _):
        wait_for(client, BundleRegistry(tmp_path).current().name)
        answers, truths, sizes = asyncio.run(swap_under_load(client, tmp_path, count))
    for place, status, body in answers:
        assert status == b"200", body
        told = json.loads(body)
        found = [(one["item_id"], rounded(one["score"])) for one in told["candidates"]]
        assert found == truths[told["bundle"]][place]
    assert len({json.loads(body)["bundle"] for _, _, body in answers}) == count + 1
    sys.stdout.write(f"{count} swaps, {len(answers)} answers, MiB {[one >> 20 for one in sizes]}\n")
    assert sizes[-1] < LEEWAY * sizes[WARM_SWAPS - 1], [size >> 20 for size in sizes]
