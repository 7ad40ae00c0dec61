"""Raw bytes against a running service: framing, upgrades and pipelining."""

import json
import re
import socket
from contextlib import closing, suppress

import pytest

from tests.support.http_caller import until
from tests.support.service_process import connect, receive_all, start_service
from tests.support.synthetic_bundle import publish_handmade

BODY = b'{"history": ["item-0", "item-2"], "k": 40}'
POST = b"POST /retrieve HTTP/1.1\r\nHost: esans\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: esans\r\n\r\n"
LAST = b"GET /livez HTTP/1.1\r\nHost: esans\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Client of a service whose bundle is live."""
    folder = tmp_path_factory.mktemp("bundles")
    publish_handmade(folder)
    with start_service(folder, ESANS_ACCESS_LOG="false") as (client, lines):
        until(lambda: client.get("/readyz").status_code == 200, limit_s=30)
        client.lines = lines
        yield client


def send(client, *parts):
    """Send parts on one connection; return what arrives until the server closes it."""
    with closing(connect(client)) as connection:
        with suppress(ConnectionError):  # closed meanwhile
            for part in parts:
                connection.sendall(part)
        return receive_all(connection)


@pytest.mark.parametrize(("path", "status"), [(b"GET /livez", b"200"), (b"POST /retrieve", b"400")])
@pytest.mark.parametrize("endless", [b"X: " + b"v" * (4 << 20), b"X: v\r\n" * (1 << 17)])
def test_trailers_above_the_limit_close_the_connection(client, path, status, endless):
    head = path + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"%x\r\n%b\r\n" % (len(BODY), BODY)
    response = send(client, head + body + b"0\r\n", endless, b"\r\n\r\n" + LAST)
    assert re.findall(rb"HTTP/1.1 (\d+)", response) == [status]


def test_endless_chunk_extension_closes_the_connection(client):
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n%x;x=" % len(BODY)
    response = send(client, head, b"v" * (1 << 20), b"\r\n%b\r\n0\r\n\r\n" % BODY + LAST)
    assert b"HTTP/1.1 200" not in response


def test_endless_blank_lines_close_the_connection(client):
    response = send(client, LIVEZ, b"\r\n" * (1 << 20), LAST)
    assert response.count(b"HTTP/1.1 200") == 1


def test_trailers_are_not_headers(client):
    head = POST + b"Transfer-Encoding: chunked\r\nX-Request-ID: head\r\n\r\n"
    chunks = b"%x\r\n%b\r\n0\r\nX-Request-ID: trailer\r\n\r\n" % (len(BODY), BODY)
    response = send(client, head, chunks + LAST)
    assert response.startswith(b"HTTP/1.1 200 OK")
    assert b"x-request-id: head\r\n" in response


@pytest.mark.parametrize("offer", [b"h2c", b"websocket", b"TLS/1.0"])
@pytest.mark.parametrize("is_split", [True, False])
def test_request_that_offers_upgrade_keeps_its_body(client, offer, is_split):
    head = POST + b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"
    head += b"Upgrade: %b\r\nContent-Length: %d\r\n\r\n" % (offer, len(BODY))
    request = head + BODY + LAST
    parts = [head[:30], head[30:], BODY[:5], BODY[5:] + LAST] if is_split else [request]
    response = send(client, *parts)
    assert re.findall(rb"HTTP/1.1 (\d+)", response) == [b"200", b"200"]
    first = response.split(b"\r\n\r\n")[1].split(b"HTTP/1.1")[0]
    assert len(json.loads(first)["candidates"]) == 38


def test_url_above_64_kib_gets_400(client):
    response = send(client, b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 400")


def test_connect_method_does_not_disturb_others(client):
    assert b"HTTP/1.1 200" not in send(client, b"CONNECT esans:80 HTTP/1.1\r\nHost: x\r\n\r\nabc")
    assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("num_requests", [31, 32, 33, 64, 3_000])
def test_pipelined_requests_are_all_answered(client, num_requests):
    response = send(client, LIVEZ * num_requests + LAST)
    assert response.count(b"HTTP/1.1 200 OK") == num_requests + 1


def test_pipelined_bodies_arrive_whole_and_in_order(client):
    def request(k):
        body = b'{"k": %d, "exclude": ["%b"]}' % (k, b"x" * 20 * k)
        return POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)

    counts = [k % 20 + 1 for k in range(300)]
    response = send(client, b"".join(map(request, counts)) + LAST)
    bodies = re.findall(rb'{"bundle".*?]', response)
    assert [body.count(b"item_id") for body in bodies] == counts


def test_garbage_after_a_request_is_no_internal_error(client):
    for _ in range(20):
        send(client, POST + b"Content-Length: %d\r\n\r\n%b\0\0\r\n" % (len(BODY), BODY))
    assert not [line for line in client.lines if line["level"] == "error"]


def test_client_gone_with_pipelined_requests_is_no_error(client):
    for _ in range(20):
        connection = connect(client)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
        connection.sendall((POST + b"Content-Length: 2\r\n\r\n{}") * 200)
        connection.close()
    assert client.get("/livez").status_code == 200
    assert not [line for line in client.lines if line["level"] == "error"]
