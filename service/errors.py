"""Errors of the service, and what every error becomes: `application/problem+json` (RFC 9457).

One table says which status each gets.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from index.errors import (
    BundleError,
    ClusterStoreError,
    EsansError,
    IncompatibleClusterMapError,
    InvalidBundleError,
    InvalidClusterMapError,
    InvalidDenylistError,
    NoBundleError,
    NoClusterMapError,
    NoDenylistError,
    ReadOnlyBundlesError,
    ReadOnlyStoreError,
    RejectedBundleError,
    RequestError,
    StoreFullError,
    StoreUnreachableError,
    TooManyDeniedError,
    UnknownAttributeError,
    UnknownItemError,
    UnknownVersionError,
)
from service.logging_config import request_id
from service.schemas.shared import Fault

BLANK = "about:blank"  # the status says it all
MEDIA_TYPE = "application/problem+json"
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="esans"'}
PATH_MARKS = "/:@!$&'()*+,;=~"  # they need no percent-encoding in a path (RFC 3986, 3.3)
UNEXPECTED = "the service failed; its log has the cause under this request_id"

MAX_FAULTS_READ = 1_000  # of one with more, none: pydantic lists all or none, 3 us each
MAX_FAULTS_SHOWN = 20
FOUND_LENGTH = 80
ENCODER = json.JSONEncoder(ensure_ascii=False)

log = logging.getLogger("service")


class BodyTooLargeError(RequestError):
    """The body has more bytes than the service reads."""


class BodyTimeoutError(RequestError):
    """The body did not arrive in time."""


class InvalidRequestError(RequestError):
    """The request breaks its schema, or does not fit the live bundle.

    Attributes:
        faults: the first ones; place (the path to the value), found, expected.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = faults[:MAX_FAULTS_SHOWN]
        first, more = faults[0], len(faults) - 1
        rest = f" (and {more} more)" if more else ""
        super().__init__(f"{first['location']}: {first['expected']}{rest}")


class InvalidBodyError(InvalidRequestError):
    """The body is invalid."""


class InvalidQueryError(InvalidRequestError):
    """The path or the query string is invalid."""


class UnknownFilterError(InvalidRequestError):
    """A filter names an attribute that the live bundle cannot be filtered by."""


class UnauthorizedError(RequestError):
    """The bearer token is missing or wrong."""


class NoItemEncoderError(RequestError):
    """The bundle has no encoder of item content."""


class QueueFullError(RequestError):
    """The request queue is full."""


class QueueTimeoutError(RequestError):
    """The request waited in the queue for longer than the queue timeout."""


class NoConsumerError(RequestError):
    """Nobody consumes the request queue: the service starts, stops, or has failed."""


class BusyError(RequestError):
    """The executor has as much of this work as it takes."""


class Row(NamedTuple):
    """What an error becomes."""

    status: int
    code: str
    title: str


INTERNAL = Row(500, BLANK, "Internal Server Error")

# The offline errors are not listed: met here, they are our own mistake, INTERNAL.
TABLE: dict[type[Exception], Row] = {
    RequestError: Row(422, "request", "The question cannot be answered"),
    UnknownAttributeError: Row(422, "unknown-attribute", "There is no such attribute to filter by"),
    UnknownFilterError: Row(422, "unknown-attribute", "There is no such attribute to filter by"),
    UnknownItemError: Row(404, "unknown-item", "The bundle does not hold this item"),
    InvalidRequestError: Row(422, "invalid-request", "The question is not as it must be"),
    InvalidQueryError: Row(422, "invalid-query", "The query is not as it must be"),
    InvalidBodyError: Row(422, "invalid-body", "The body is not as it must be"),
    BodyTimeoutError: Row(408, "body-timeout", "The body came too slowly"),
    BodyTooLargeError: Row(413, "body-too-large", "The body is too large"),
    NoItemEncoderError: Row(409, "no-item-encoder", "The bundle knows no content of items"),
    UnauthorizedError: Row(401, "unauthorized", "The token is not right"),
    BusyError: Row(503, "busy", "Too much of this is asked for at once"),
    QueueFullError: Row(503, "queue-full", "Too many questions wait"),
    QueueTimeoutError: Row(503, "queue-timeout", "The turn came too late"),
    NoConsumerError: Row(503, "stopped", "Questions are not answered here"),
    NoBundleError: Row(503, "no-bundle", "No bundle is live"),
    InvalidBundleError: Row(503, "invalid-bundle", "The bundle has faults"),
    UnknownVersionError: Row(404, "unknown-version", "No such bundle"),
    RejectedBundleError: Row(409, "rejected-bundle", "The bundle was refused"),
    ReadOnlyBundlesError: Row(409, "read-only-bundles", "The bundles may not be written here"),
    BundleError: Row(503, "bundle", "The bundle cannot be used"),
    ClusterStoreError: Row(503, "cluster-store", "The store failed"),
    StoreUnreachableError: Row(503, "store-unreachable", "The store does not answer"),
    StoreFullError: Row(503, "store-full", "The store is full"),
    ReadOnlyStoreError: Row(409, "read-only-store", "The store may not be written here"),
    NoClusterMapError: Row(404, "no-cluster-map", "There is no such cluster map"),
    IncompatibleClusterMapError: Row(
        409, "incompatible-cluster-map", "The cluster map is of other items"
    ),
    InvalidClusterMapError: Row(503, "invalid-cluster-map", "The stored cluster map has faults"),
    NoDenylistError: Row(409, "no-denylist", "There is no denylist to change"),
    InvalidDenylistError: Row(409, "invalid-denylist", "The stored denylist has faults"),
    TooManyDeniedError: Row(422, "too-many-denied", "Too many denied items"),
}


def problem_response(
    path: str,
    row: Row,
    detail: str,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """Answer a request for this path with a `Problem`, of more than the usual members."""
    body = {
        "type": row.code if row.code == BLANK else f"urn:esans:problem:{row.code}",
        "title": row.title,
        "status": row.status,
        "detail": detail,
        "instance": quote(path, safe=PATH_MARKS),
        "request_id": request_id.get() or "",
        **(more or {}),
    }
    wanted = {"Cache-Control": "no-store", **(headers or {})}
    return Response(orjson.dumps(body), row.status, wanted, MEDIA_TYPE)


def internal_problem(path: str) -> Response:
    """Answer that we failed, without telling how."""
    return problem_response(path, INTERNAL, UNEXPECTED)


def install_error_handlers(
    app: FastAPI, retry_after_s: int, on_problem: Callable[[str], None]
) -> None:
    """Let the app answer errors with problems; a 503 says when to come back.

    Args:
        on_problem: called with the code of each problem.
    """

    async def handle_error(request: Request, error: Exception) -> Response:
        row = TABLE.get(type(error), INTERNAL)
        if row.status == INTERNAL.status:
            log.error("request failed", exc_info=error)
            return internal_problem(request.scope["path"])
        on_problem(row.code)
        more: dict[str, Any] = {}
        if isinstance(error, InvalidRequestError):
            more["errors"] = error.faults
        if isinstance(error, RejectedBundleError):
            more["reasons"] = error.faults
        seconds = 1 if isinstance(error, QueueFullError | QueueTimeoutError) else retry_after_s
        headers = {503: {"Retry-After": str(seconds)}, 401: CHALLENGE}.get(row.status)
        return problem_response(request.scope["path"], row, str(error), headers, more)

    async def handle_invalid_query(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return await handle_error(request, invalid_query(request, error.errors()))

    app.add_exception_handler(EsansError, handle_error)
    app.add_exception_handler(RequestValidationError, handle_invalid_query)
    app.add_exception_handler(HTTPException, handle_http_error)


async def handle_http_error(request: Request, error: Exception) -> Response:
    """Answer what the web framework itself refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    path = request.scope["path"]
    detail = f"{request.method} {path}: {error.detail}; /docs lists what can be asked"
    row = Row(error.status_code, BLANK, phrase)
    return problem_response(path, row, detail, error.headers)


def invalid_query(request: Request, errors: Sequence[Any]) -> InvalidQueryError:
    """Describe what FastAPI found wrong with a path and its query string."""
    for error in errors:
        name, *rest = error["loc"][1:]
        if error["loc"][0] == "query" and name in request.path_params:
            name = f"{name} (in the query)"
        error["loc"] = (name, *rest)
    return InvalidQueryError(faults_of(errors, len(errors)))


def faults_of(errors: Sequence[ErrorDetails], count: int) -> list[Fault]:
    """Describe the faults that a schema found; of very many, their number alone."""
    if count > MAX_FAULTS_READ:
        expected = f"{MAX_FAULTS_READ} at most, to be told them; correct it, or send a part of it"
        return [{"location": "the question", "received": f"{count} faults", "expected": expected}]
    return [_fault(one) for one in errors]


def _fault(error: ErrorDetails) -> Fault:
    place = ".".join(str(step) for step in error["loc"]) or "the body"
    found = "text that is no JSON"
    if error["type"] != "json_invalid":
        found = _beginning(error["input"])
    is_extra = error["type"] == "extra_forbidden"
    expected = "no such key here; remove it or correct its name" if is_extra else error["msg"]
    return {"location": place, "received": found, "expected": expected}


def _beginning(value: object) -> str:
    """Write no more of a value than is shown: it may be the whole body."""
    written = ""
    for piece in ENCODER.iterencode(value):
        written += piece
        if len(written) > FOUND_LENGTH:
            return f"{written[:FOUND_LENGTH]}..."
    return written
