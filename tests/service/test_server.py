import asyncio
import json
import signal
import socket
import time
from contextlib import closing, suppress

import httpx
import pytest

from tests.support.http_caller import until
from tests.support.service_process import served
from tests.support.synthetic_bundle import publish_handmade

BODY = b'{"history": ["item-0", "item-2"], "k": 40}'
QUESTION = (
    b"POST /retrieve HTTP/1.1\r\nHost: esans\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)
HEAD = b"POST /retrieve HTTP/1.1\r\nHost: esans\r\nContent-Length: 100\r\n\r\n"


def address(client):
    return client.base_url.host, client.base_url.port


def connect(client):
    return socket.create_connection(address(client), timeout=30)


def everything(connection):
    """What comes until the other side closes, or resets what it did not read."""
    told = b""
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65_536):
            told += chunk
    return told


async def read_answer(reader):
    """The head, in small letters, and the body of one answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    publish_handmade(folder)
    return folder


def ready(client):
    until(lambda: client.get("/readyz").status_code == 200, limit_s=30)


async def ask_until_sent_away(client, answered):
    """Ask again and again on one connection until the service says that it closes."""
    reader, writer = await asyncio.open_connection(*address(client))
    while True:
        writer.write(QUESTION)
        head, body = await read_answer(reader)
        assert b" 200 ok" in head
        answered.append(len(json.loads(body)["candidates"]))
        if b"connection: close" in head:
            writer.close()
            return


@pytest.mark.parametrize("delay_s", ["0", "0.5"])
def test_a_signal_at_full_load_loses_no_accepted_request(bundles, delay_s):
    answered = []

    async def load(client):
        clients = [asyncio.create_task(ask_until_sent_away(client, answered)) for _ in range(32)]
        while len(answered) < 200:  # noqa: ASYNC110  # the clients' own count
            await asyncio.sleep(0.01)
        client.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)  # raises where an answer is cut off or missing
        assert client.process.wait(timeout=30) == 0

    options = {"ESANS_ACCESS_LOG": "false", "ESANS_SHUTDOWN_DELAY_S": delay_s}
    with served(bundles, **options) as (client, _):
        ready(client)
        asyncio.run(load(client))
    assert set(answered) == {38}


def test_readiness_falls_first_and_questions_are_answered_on(bundles):
    with served(bundles, ESANS_SHUTDOWN_DELAY_S="600") as (client, lines):
        ready(client)
        assert "connection" not in client.get("/livez").headers
        client.process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz").json()["status"] == "draining"
        assert client.get("/livez").headers["connection"] == "close"
        assert client.post("/retrieve", json={"user_id": "user-0"}).status_code == 200
    assert lines[-1] == {"event": "exit", "status": 1}  # `served` sent a second signal


def test_the_port_closes_after_the_delay_and_nobody_can_connect(bundles):
    with served(bundles, ESANS_SHUTDOWN_DELAY_S="0.3") as (client, lines):
        ready(client)
        client.process.send_signal(signal.SIGTERM)
        until(lambda: is_refused(client), limit_s=30)
        assert client.process.wait(timeout=30) == 0
    events = [line["event"] for line in lines if line["event"] in ("draining", "closing")]
    assert events == ["draining", "closing"]


def is_refused(client):
    try:
        connect(client).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_request_that_is_half_sent_when_the_signal_comes_is_answered(bundles):
    with served(bundles) as (client, _):
        ready(client)
        with closing(connect(client)) as connection:
            connection.sendall(QUESTION[:-10])
            client.get("/livez")  # by now the head was read
            client.process.send_signal(signal.SIGTERM)
            until(lambda: is_refused(client), limit_s=30)
            connection.sendall(QUESTION[-10:])
            told = everything(connection)
        assert client.process.wait(timeout=30) == 0
    assert told.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in told.lower()


def test_who_sends_too_slowly_is_told_so_while_others_are_served(bundles):
    with served(bundles, ESANS_REQUEST_TIMEOUT_S="0.5") as (client, _):
        ready(client)
        with closing(connect(client)) as slow:
            slow.sendall(HEAD)
            told = b""
            slow.settimeout(0.02)
            while not told:
                slow.sendall(b" ")
                assert client.post("/retrieve", json={"k": 3}).status_code == 200
                try:
                    told = slow.recv(65_536)
                except TimeoutError:
                    continue
            told += everything(slow)
        assert told.startswith(b"HTTP/1.1 408 Request Timeout")
        assert b"connection: close" in told.lower()
        assert b"ESANS_REQUEST_TIMEOUT_S" in told


def test_who_connects_and_says_nothing_or_half_a_head_is_sent_away(bundles):
    with served(bundles, ESANS_REQUEST_TIMEOUT_S="0.5") as (client, _):
        with closing(connect(client)) as silent, closing(connect(client)) as half:
            half.sendall(HEAD[:20])
            assert everything(silent) == everything(half) == b""
        assert client.get("/livez").status_code == 200


def test_a_head_without_end_is_refused(bundles):
    patient = {"ESANS_REQUEST_TIMEOUT_S": "600"}
    with served(bundles, **patient) as (client, _), closing(connect(client)) as one:
        with suppress(ConnectionError):  # closed meanwhile
            one.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"x" * (4 << 20))
        everything(one)  # ends: the other side has closed
        assert client.get("/livez").status_code == 200


def test_a_head_of_a_hundred_kilobytes_is_read(bundles):
    with served(bundles) as (client, _):
        assert client.get("/livez", headers={"X": "x" * 100_000}).status_code == 200


def test_who_does_not_read_the_answer_is_cut_off(bundles):
    many = b"GET /openapi.json HTTP/1.1\r\nHost: esans\r\n\r\n" * 1_000  # 40 MB of answers

    def in_flight():
        return client.get("/metrics").text.split("\nesans_inflight_requests ")[1][0]

    limits = {"ESANS_REQUEST_TIMEOUT_S": "2"}
    with served(bundles, **limits) as (client, _), closing(connect(client)) as one:
        one.sendall(many)
        until(lambda: in_flight() == "2", limit_s=30)
        until(lambda: in_flight() == "1", limit_s=30)


def test_a_body_that_says_it_is_too_large_is_refused_unread(bundles):
    with served(bundles) as (client, _), closing(connect(client)) as connection:
        connection.sendall(HEAD.replace(b"100", b"1048577"))
        told = everything(connection)
    assert told.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in told.lower()


def test_a_body_that_says_it_is_too_large_is_not_even_asked_for(bundles):
    """curl waits to be told to go on with a body over 1 MiB."""
    asks_first = HEAD.replace(b"100", b"1048577").replace(
        b"\r\n", b"\r\nExpect: 100-continue\r\n", 1
    )
    with served(bundles) as (client, _), closing(connect(client)) as connection:
        connection.sendall(asks_first)
        told = everything(connection)
    assert told.startswith(b"HTTP/1.1 413 ")


def test_a_body_in_chunks_is_refused_once_it_is_too_large(bundles):
    def chunks():
        for _ in range(100):
            yield b" " * 65_536

    with served(bundles) as (client, _):
        told = client.post("/retrieve", content=chunks())
        assert told.status_code == 413
        assert client.get("/livez").status_code == 200


def test_five_hundred_idle_connections_keep_nobody_from_an_answer(bundles):
    with served(bundles, ESANS_ACCESS_LOG="false") as (client, _):
        ready(client)
        idle = [connect(client) for _ in range(500)]
        try:
            for connection in idle[::2]:  # these have asked once, the others never
                connection.sendall(QUESTION)
                assert connection.recv(15) == b"HTTP/1.1 200 OK"
            for _ in range(10):
                assert client.post("/retrieve", json={"k": 3}).status_code == 200
            assert client.get("/livez").status_code == 200
        finally:
            for connection in idle:
                connection.close()


def test_it_is_alive_and_refuses_in_order_while_more_is_asked_than_it_can_do(bundles):
    statuses = []

    async def flood(client):
        async with httpx.AsyncClient(base_url=client.base_url, timeout=60) as many:
            asked = [asyncio.create_task(many.post("/retrieve", json=big)) for _ in range(64)]
            alive = 0
            while not all(one.done() for one in asked):
                assert client.get("/livez").status_code == 200
                alive += 1
                await asyncio.sleep(0)
            statuses.extend(one.result() for one in asked)
        return alive

    big = {"history": [f"item-{row % 40}" for row in range(3_000)], "exclude_seen": False}
    limits = {"ESANS_QUEUE_LIMIT": "2", "ESANS_ACCESS_LOG": "false"}
    with served(bundles, **limits) as (client, _):
        ready(client)
        assert asyncio.run(flood(client)) > 0
    refused = [one for one in statuses if one.status_code == 503]
    assert len(refused) < 64
    for one in refused:
        assert one.json()["type"] == "urn:esans:problem:queue-full"
        assert one.headers["retry-after"] == "1"


def test_the_second_signal_ends_it_at_once(bundles):
    with served(bundles, ESANS_SHUTDOWN_DELAY_S="600") as (client, lines):
        ready(client)
        began = time.monotonic()
        client.process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/readyz").status_code == 503)
    assert time.monotonic() - began < 300
    assert lines[-1]["status"] == 1
