"""Malformed and hostile requests, each sent on a connection of its own."""

import json

from tests.attack.target import GET, post

HOST = b"Host: x\r\n"
RETRIEVE = b"POST /retrieve HTTP/1.1\r\nHost: x\r\n"
QUERY = b'{"k": 5}'


def chunked(*chunks):
    return RETRIEVE + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)


# name: (bytes, statuses of the first response that are right; empty: closed without a response)
MALFORMED = {
    "two lengths": (RETRIEVE + b"Content-Length: 8\r\nContent-Length: 2\r\n\r\n" + QUERY, {400}),
    "length and chunks": (
        RETRIEVE + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" + QUERY,
        {400},
    ),
    "negative length": (RETRIEVE + b"Content-Length: -8\r\n\r\n" + QUERY, {400}),
    "length beyond 64 bits": (RETRIEVE + b"Content-Length: 99999999999999999999\r\n\r\n", {400}),
    "length of 4 EB": (RETRIEVE + b"Content-Length: 4611686018427387904\r\n\r\n", {413}),
    "chunk beyond 64 bits": (chunked(b"FFFFFFFFFFFFFFFFF\r\n"), {400}),
    "negative chunk": (chunked(b"-1\r\n"), {400}),
    "chunk without end": (chunked(b"3\r\nabcdef"), {400}),
    "unknown transfer encoding": (RETRIEVE + b"Transfer-Encoding: gzip\r\n\r\nx", {400, 422}),
    "name with a space": (b"GET /livez HTTP/1.1\r\nA b: c\r\n\r\n", {400}),
    "NUL in a header": (b"GET /livez HTTP/1.1\r\nA: b\0c\r\n\r\n", {400}),
    "bare line feeds": (b"GET /livez HTTP/1.1\nHost: x\n\n", {200, 400}),
    "folded header": (b"GET /livez HTTP/1.1\r\nA: b\r\n c\r\nHost: x\r\n\r\n", {200, 400}),
    "two hosts": (b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", {200, 400}),
    "no host": (b"GET /livez HTTP/1.1\r\n\r\n", {200, 400}),
    "3,000 headers": (b"GET /livez HTTP/1.1\r\n" + b"A: b\r\n" * 3_000 + b"\r\n", {200, 400}),
    "HTTP/0.9": (b"GET /livez\r\n\r\n", {200, 400}),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400}),
    "HTTP/9.9": (b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n", {400}),
    "TLS hello": (bytes.fromhex("16030100c8010000c40303") + b"\xaa" * 190, {400}),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404, 405}),
    "TRACE": (b"TRACE /livez HTTP/1.1\r\nHost: x\r\nCookie: secret\r\n\r\n", {405}),
    "options of all": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", {404, 405}),
    "absolute URL": (b"GET http://other.example/livez HTTP/1.1\r\nHost: x\r\n\r\n", {200, 404}),
    "WebSocket": (
        b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        {200},
    ),
    "URL of 70 KB": (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    "path out of a folder": (b"GET /docs-static/../../etc/passwd HTTP/1.1\r\n\r\n", {404}),
    "encoded path out of a folder": (
        b"GET /docs-static/..%2f..%2f..%2fetc/passwd HTTP/1.1\r\n\r\n",
        {404},
    ),
    "NUL in a path": (b"GET /docs-static/%00 HTTP/1.1\r\n\r\n", {404}),
    "invalid UTF-8 in a path": (b"GET /items/%ff%fe/similar HTTP/1.1\r\n\r\n", {404, 422}),
    "60 KB of slashes": (b"GET /items/" + b"%2F" * 20_000 + b"/similar HTTP/1.1\r\n\r\n", {422}),
    "line breaks in an id": (b"GET /items/a%0d%0aX:%20y/similar HTTP/1.1\r\n\r\n", {404}),
    "range": (b"GET /docs-static/ HTTP/1.1\r\nRange: bytes=0-,0-,0-\r\n\r\n", {404}),
    "request id with a line break": (
        b"GET /livez HTTP/1.1\r\nX-Request-ID: a%0d%0ab\r\nX-Request-ID: \x80\r\n\r\n",
        {200},
    ),
    "many trace parents": (
        b"GET /livez HTTP/1.1\r\n" + b"traceparent: 00-x\r\n" * 1_000 + b"\r\n",
        {200},
    ),
    "spoofed proxy headers": (
        b"GET /livez HTTP/1.1\r\nX-Forwarded-For: " + b"1.1.1.1," * 9_000 + b"\r\n\r\n",
        {200},
    ),
}

# name: a body for /retrieve that must be a problem
INVALID_BODIES = {
    "compressed bytes": b"\x1f\x8b\x08\0" + b"\0" * 100_000,
    "invalid UTF-8": b'{"user_id": "\xff\xfe"}',
    "UTF-16": '{"k": 5}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + QUERY,
    "lone surrogate": b'{"user_id": "\\ud800"}',
    "NaN": b'{"k": NaN}',
    "infinite": b'{"k": 1e999999}',
    "k of 64 bits": b'{"k": 18446744073709551616}',
    "negative k": b'{"k": -1}',
    "true for k": b'{"k": true}',
    "text for k": b'{"k": "5"}',
    "1 MB of escapes": b'{"user_id": "' + b"\\u0000" * 170_000 + b'"}',
    "id of 1 MB": b'{"user_id": "' + b"x" * 1_000_000 + b'"}',
    "50,000 unknown keys": json.dumps({f"key{n}": 1 for n in range(50_000)}).encode(),
    "repeated keys": b'{"k": 5, "k": 6}',
    "repeated attribute": b'{"filter": {"odd": ["true"], "odd": ["false"]}}',
    "prototype": b'{"__proto__": {}, "__class__": "x"}',
    "two documents": QUERY + QUERY,
    "comments": b'{"k": 5 /* five */}',
    "trailing comma": b'{"k": 5,}',
    "nested filter": b'{"filter": {"odd": [["true"]]}}',
    "1,000 attributes": json.dumps({"filter": {f"a{n}": ["x"] for n in range(1_000)}}).encode(),
    "unknown attribute": b'{"filter": {"__len__": ["x"]}}',
    "an array": b"[]",
    "nothing": b"",
    "NUL bytes": b"\0" * 1_000,
}


def first_status(received):
    """Return the status of the first response; None if the connection was closed without."""
    return int(received[9:12]) if received.startswith(b"HTTP/1.1 ") else None


def malformed_requests(target):
    """Each malformed request gets one of its right statuses, and none disturbs the next."""
    wrong = {}
    for name, (data, statuses) in MALFORMED.items():
        status = first_status(target.exchange(data, limit_s=3, silence_s=0.5))
        if status not in statuses:
            wrong[name] = status
    assert wrong == {}


def smuggled_request(target):
    """A request in the body of another is a body."""
    hidden = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    for data in (
        chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)),
        post("/retrieve", hidden),
        b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(hidden) + hidden,
    ):
        assert b"esans_ready" not in target.exchange(data + GET, limit_s=3, silence_s=0.5)


def invalid_bodies(target):
    """Each invalid body is a 422, on one connection."""
    data = b"".join(post("/retrieve", body) for body in INVALID_BODIES.values())
    received = target.exchange(data, limit_s=20)
    assert received.count(b"HTTP/1.1 422 ") == len(INVALID_BODIES)
    assert received.count(b"HTTP/1.1 ") == len(INVALID_BODIES)
