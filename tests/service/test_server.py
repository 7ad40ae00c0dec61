import asyncio
import json
import signal
import time
from contextlib import closing, suppress

import httpx
import pytest

from tests.support.http_caller import until
from tests.support.service_process import address, connect, receive_all, start_service
from tests.support.synthetic_bundle import publish_handmade

BODY = b'{"history": ["item-0", "item-2"], "k": 40}'
REQUEST = (
    b"POST /retrieve HTTP/1.1\r\nHost: esans\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)
HEAD = b"POST /retrieve HTTP/1.1\r\nHost: esans\r\nContent-Length: 100\r\n\r\n"


async def read_response(reader):
    """Return the lower-case head and the body of a response."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    publish_handmade(folder)
    return folder


@pytest.fixture(scope="module")
def patient(bundles):
    """Client of a service that closes no connection of these tests for being slow."""
    with start_service(bundles, ESANS_REQUEST_TIMEOUT_S="600") as (client, _):
        yield client


@pytest.fixture(scope="module")
def impatient(bundles):
    """Client of a service that waits half a second for a request."""
    with start_service(bundles, ESANS_REQUEST_TIMEOUT_S="0.5") as (client, _):
        yield client


def wait_until_ready(client):
    until(lambda: client.get("/readyz").status_code == 200, limit_s=30)


async def retrieve_until_closed(client, counts):
    """Send requests on one connection until a response announces its end."""
    reader, writer = await asyncio.open_connection(*address(client))
    while True:
        writer.write(REQUEST)
        head, body = await read_response(reader)
        assert b" 200 ok" in head
        counts.append(len(json.loads(body)["candidates"]))
        if b"connection: close" in head:
            writer.close()
            return


@pytest.mark.parametrize("delay_s", ["0", "0.5"])
def test_sigterm_under_load_loses_no_accepted_request(bundles, delay_s):
    counts = []

    async def load(client):
        clients = [asyncio.create_task(retrieve_until_closed(client, counts)) for _ in range(32)]
        while len(counts) < 200:  # noqa: ASYNC110  # counted by the clients
            await asyncio.sleep(0.01)
        client.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)  # raises if a response is incomplete or missing
        assert client.process.wait(timeout=30) == 0

    options = {"ESANS_ACCESS_LOG": "false", "ESANS_SHUTDOWN_DELAY_S": delay_s}
    with start_service(bundles, **options) as (client, _):
        wait_until_ready(client)
        asyncio.run(load(client))
    assert set(counts) == {38}


def test_draining_is_not_ready_but_serves(bundles):
    with start_service(bundles, ESANS_SHUTDOWN_DELAY_S="600") as (client, lines):
        wait_until_ready(client)
        assert "connection" not in client.get("/livez").headers
        client.process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz").json()["status"] == "draining"
        assert client.get("/livez").headers["connection"] == "close"
        assert client.post("/retrieve", json={"user_id": "user-0"}).status_code == 200
    assert lines[-1] == {"event": "exit", "status": 1}  # `start_service` sent a second signal


def test_port_closes_after_shutdown_delay(bundles):
    with start_service(bundles, ESANS_SHUTDOWN_DELAY_S="0.3") as (client, lines):
        wait_until_ready(client)
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


def test_request_half_sent_at_sigterm_is_answered(bundles):
    with start_service(bundles) as (client, _):
        wait_until_ready(client)
        with closing(connect(client)) as connection:
            connection.sendall(REQUEST[:-10])
            client.get("/livez")  # the head has been read by then
            client.process.send_signal(signal.SIGTERM)
            until(lambda: is_refused(client), limit_s=30)
            connection.sendall(REQUEST[-10:])
            response = receive_all(connection)
        assert client.process.wait(timeout=30) == 0
    assert response.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in response.lower()


def test_slow_body_gets_408_while_others_are_served(impatient):
    wait_until_ready(impatient)
    with closing(connect(impatient)) as slow:
        slow.sendall(HEAD)
        response = b""
        slow.settimeout(0.02)
        while not response:
            slow.sendall(b" ")
            assert impatient.post("/retrieve", json={"k": 3}).status_code == 200
            try:
                response = slow.recv(65_536)
            except TimeoutError:
                continue
        response += receive_all(slow)
    assert response.startswith(b"HTTP/1.1 408 Request Timeout")
    assert b"connection: close" in response.lower()
    assert b"ESANS_REQUEST_TIMEOUT_S" in response


def test_connection_without_full_head_is_closed(impatient):
    with closing(connect(impatient)) as silent, closing(connect(impatient)) as half:
        half.sendall(HEAD[:20])
        assert receive_all(silent) == receive_all(half) == b""
    assert impatient.get("/livez").status_code == 200


def test_endless_head_is_rejected(patient):
    with closing(connect(patient)) as connection:
        with suppress(ConnectionError):  # closed during the send
            connection.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"x" * (4 << 20))
        receive_all(connection)  # returns: the server has closed
        assert patient.get("/livez").status_code == 200


def test_head_of_100_kb_is_accepted(patient):
    assert patient.get("/livez", headers={"X": "x" * 100_000}).status_code == 200


def test_client_that_reads_no_response_is_closed(bundles):
    # 40 MB of responses
    requests = b"GET /openapi.json HTTP/1.1\r\nHost: esans\r\n\r\n" * 1_000

    def in_flight():
        return client.get("/metrics").text.split("\nesans_inflight_requests ")[1][0]

    with start_service(bundles) as (client, _), closing(connect(client)) as connection:
        connection.sendall(requests)
        until(lambda: in_flight() == "2", limit_s=30)
        until(lambda: in_flight() == "1", limit_s=30)


def test_content_length_over_limit_gets_413_unread(patient):
    with closing(connect(patient)) as connection:
        connection.sendall(HEAD.replace(b"100", b"1048577"))
        response = receive_all(connection)
    assert response.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in response.lower()


def test_content_length_over_limit_gets_no_100_continue(patient):
    """curl waits for 100-continue before it sends a body over 1 MiB."""
    head = HEAD.replace(b"100", b"1048577").replace(b"\r\n", b"\r\nExpect: 100-continue\r\n", 1)
    with closing(connect(patient)) as connection:
        connection.sendall(head)
        response = receive_all(connection)
    assert response.startswith(b"HTTP/1.1 413 ")


def test_chunked_body_over_limit_gets_413(patient):
    def chunks():
        for _ in range(100):
            yield b" " * 65_536

    assert patient.post("/retrieve", content=chunks()).status_code == 413
    assert patient.get("/livez").status_code == 200


def test_500_idle_connections_do_not_block_requests(bundles):
    with start_service(bundles, ESANS_ACCESS_LOG="false") as (client, _):
        wait_until_ready(client)
        idle = [connect(client) for _ in range(500)]
        try:
            for connection in idle[::2]:  # half of them have sent a request
                connection.sendall(REQUEST)
                assert connection.recv(15) == b"HTTP/1.1 200 OK"
            for _ in range(10):
                assert client.post("/retrieve", json={"k": 3}).status_code == 200
            assert client.get("/livez").status_code == 200
        finally:
            for connection in idle:
                connection.close()


def test_overload_gets_503_while_livez_responds(bundles):
    responses = []

    async def flood(client):
        async with httpx.AsyncClient(base_url=client.base_url, timeout=60) as pool:
            tasks = [asyncio.create_task(pool.post("/retrieve", json=query)) for _ in range(64)]
            num_probes = 0
            while not all(task.done() for task in tasks):
                assert client.get("/livez").status_code == 200
                num_probes += 1
                await asyncio.sleep(0)
            responses.extend(task.result() for task in tasks)
        return num_probes

    query = {"history": [f"item-{row % 40}" for row in range(3_000)], "exclude_seen": False}
    limits = {"ESANS_QUEUE_LIMIT": "2", "ESANS_ACCESS_LOG": "false"}
    with start_service(bundles, **limits) as (client, _):
        wait_until_ready(client)
        assert asyncio.run(flood(client)) > 0
    rejected = [response for response in responses if response.status_code == 503]
    assert len(rejected) < 64
    for response in rejected:
        assert response.json()["type"] == "urn:esans:problem:queue-full"
        assert response.headers["retry-after"] == "1"


def test_second_signal_exits_at_once(bundles):
    with start_service(bundles, ESANS_SHUTDOWN_DELAY_S="600") as (client, lines):
        wait_until_ready(client)
        start_s = time.monotonic()
        client.process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/readyz").status_code == 503)
    assert time.monotonic() - start_s < 300
    assert lines[-1]["status"] == 1
