"""Bodies: read within a bound, checked against a schema, written as JSON."""

import asyncio
import json
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from index.errors import RequestError
from service.schemas.shared import Fault

FAULTS_TOLD = 20  # of a body with more, the first ones are told
FAULTS_READ = 1_000  # of one with more, none: pydantic tells all or none, 3 us each
FOUND_LENGTH = 80
ENCODER = json.JSONEncoder(ensure_ascii=False)
NO_STORE = {"Cache-Control": "no-store"}

Model = TypeVar("Model", bound=BaseModel)
Body = TypeVar("Body", bytes, bytearray)


class BodyTooLargeError(RequestError):
    """The body has more bytes than the service reads."""


class SlowBodyError(RequestError):
    """The body did not come in time."""


class InvalidRequestError(RequestError):
    """What was sent breaks its schema, or does not fit the bundle.

    faults  of them the first: place (the way to it), found, expected
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = faults[:FAULTS_TOLD]
        first, more = faults[0], len(faults) - 1
        rest = f" (and {more} more)" if more else ""
        super().__init__(f"{first['place']}: {first['expected']}{rest}")


class BodyLimits(NamedTuple):
    """What a body may be: so many bytes, come within so many seconds."""

    size_bytes: int
    wait_s: float


class InvalidBodyError(InvalidRequestError):
    """The body is not as it must be."""


async def read_body(request: Request, schema: type[Model], limits: BodyLimits) -> Model:
    """Read and check a JSON body.

    Raises BodyTooLargeError as soon as that shows, SlowBodyError, InvalidBodyError with every
    fault, ClientDisconnect.
    """
    if said_bytes(request) > limits.size_bytes:  # before any of it is asked for
        raise _too_large(limits.size_bytes)
    begun = received(request)
    if begun is None or begun.get("more_body"):
        body = await _slow_bytes_of(request, begun, limits)
    else:  # nearly always: it is whole, and nothing is waited for
        body = _bounded(_part_of(begun), limits.size_bytes)
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise InvalidBodyError(faults_of(error)) from error


def said_bytes(request: Request) -> int:
    """Return how large the head says that the body is; 0 where it does not say."""
    for name, value in request.scope["headers"]:  # as they are: `request.headers` costs 3 us
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


async def _slow_bytes_of(request: Request, begun: Message | None, limits: BodyLimits) -> bytes:
    try:
        async with asyncio.timeout(limits.wait_s):
            return await _rest_of(request, begun, limits.size_bytes)
    except TimeoutError as error:
        raise SlowBodyError(
            f"the body did not come within {limits.wait_s:g} s; send it in one go, or let the "
            "operator raise ESANS_REQUEST_TIMEOUT_S"
        ) from error


async def _rest_of(request: Request, begun: Message | None, limit_bytes: int) -> bytes:
    """Return the body whose beginning was received, or nothing yet; no more than the limit."""
    body, message = bytearray(), begun or await request.receive()
    while True:
        body += _part_of(message)
        _bounded(body, limit_bytes)  # the header may be absent, so count as it comes
        if not message.get("more_body"):
            return bytes(body)
        message = await request.receive()


def _part_of(message: Message) -> bytes:
    if message["type"] != "http.request":
        raise ClientDisconnect
    part: bytes = message.get("body", b"")
    return part


def _bounded(body: Body, limit_bytes: int) -> Body:
    if len(body) > limit_bytes:
        raise _too_large(limit_bytes)
    return body


def received(request: Request) -> Message | None:
    """Return what has come of a request, without waiting for anything; None if nothing has."""
    asking = cast(Coroutine[Any, Any, Message], request.receive())
    try:
        asking.send(None)  # as far as it comes without waiting
    except StopIteration as told:
        message: Message = told.value
        return message
    finally:
        asking.close()
    return None


def _too_large(limit_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"the body is larger than {limit_bytes} bytes; send shorter lists, or let the operator "
        "raise ESANS_BODY_LIMIT_BYTES"
    )


def faults_of(error: ValidationError) -> list[Fault]:
    """Put what a schema found into the caller's words: of a list, the first of its members."""
    count = error.error_count()
    if count > FAULTS_READ:
        expected = f"{FAULTS_READ} at most, to be told them; correct it, or send a part of it"
        return [{"place": "the question", "found": f"{count} faults", "expected": expected}]
    return [_fault(one) for one in error.errors(include_url=False)]


def _fault(fault: ErrorDetails) -> Fault:
    place = ".".join(str(step) for step in fault["loc"]) or "the body"
    found = "text that is no JSON"
    if fault["type"] != "json_invalid":
        found = _beginning(fault["input"])
    return {"place": place, "found": found, "expected": _expectation(fault)}


def _beginning(value: object) -> str:
    """Write no more of a value than is told: it may be the whole body."""
    written = ""
    for piece in ENCODER.iterencode(value):
        written += piece
        if len(written) > FOUND_LENGTH:
            return f"{written[:FOUND_LENGTH]}..."
    return written


def _expectation(fault: ErrorDetails) -> str:
    if fault["type"] == "extra_forbidden":
        return "no such key here; remove it or correct its name"
    return fault["msg"]


def json_response(
    value: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Answer with a value that orjson can write; arrays and their numbers may be numpy's."""
    return written_response(json_bytes(value), status, headers)


def written_response(
    body: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Answer with what is written as JSON already."""
    return Response(body, status, headers, media_type="application/json")


def json_in_parts(rows: Sequence[object] | NDArray[Any], count: int) -> orjson.Fragment:
    """Write a long list, `count` of its members at a time: threads take turns in between."""
    parts = [json_bytes(rows[begin : begin + count]) for begin in range(0, len(rows), count)]
    return orjson.Fragment(b"[" + b",".join(part[1:-1] for part in parts) + b"]")


def json_bytes(value: object) -> bytes:
    """Write a value; pieces that are written already may come as `orjson.Fragment`."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
