"""Client that sends the stored bytes of golden requests to a real service."""

import json
import socket
from contextlib import contextmanager
from functools import partial
from http.client import HTTPResponse

from tests.golden import world
from tests.support.http_caller import until
from tests.support.service_process import start_service

KEPT_HEADERS = ("allow", "cache-control", "retry-after", "www-authenticate")
SETTINGS = {
    "ESANS_ADMIN_TOKEN": world.TOKEN,
    "ESANS_BODY_LIMIT_BYTES": str(world.BODY_LIMIT_BYTES),
    "ESANS_ACCESS_LOG": "false",
}
TIMEOUT_S = 60


@contextmanager
def serving(name, folder):
    """Serve the bundle of a world; yields a function that sends one request."""
    bundles = folder / name
    world.publish(name, bundles)
    with start_service(bundles, **SETTINGS) as (client, _):
        status = 503 if name == "none" else 200

        def is_settled():
            ready = client.get("/readyz")
            is_starting = any(text in ready.text for text in ("not asked yet", "loading"))
            return ready.status_code == status and not is_starting

        until(is_settled, TIMEOUT_S)
        yield partial(send, (client.base_url.host, client.base_url.port))


def send(address, request):
    """Send one request; return its status, compared headers, content type and body."""
    with socket.create_connection(address, TIMEOUT_S) as connection:
        connection.sendall(encode_request(request, f"{address[0]}:{address[1]}"))
        response = HTTPResponse(connection, method=request["method"])
        response.begin()
        text = response.read().decode()
    content_type = response.getheader("content-type", "")
    is_json = content_type.endswith("json") and text
    return {
        "status": response.status,
        "type": content_type,
        "headers": {n: v for n in KEPT_HEADERS if (v := response.getheader(n)) is not None},
        "body": json.loads(text) if is_json else text,
    }


def encode_request(request, host):
    """Encode a request for a connection of its own."""
    body = body_of(request)
    headers = {"host": host, "connection": "close"}
    if body is not None:
        headers["content-type"] = "application/json"
    if request.get("chunked"):
        headers["transfer-encoding"] = "chunked"
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    elif body is not None:
        headers["content-length"] = str(len(body))
    headers |= request.get("headers", {})
    lines = [f"{request['method']} {request['path']} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def body_of(request):
    """Decode a body: text, hex or repeated text; None without a body."""
    if "hex" in request:
        return bytes.fromhex(request["hex"])
    if "repeated" in request:
        before, text, times, after = request["repeated"]
        return (before + text * times + after).encode()
    return request["body"].encode() if "body" in request else None
