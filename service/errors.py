"""Service errors and their rendering as `application/problem+json` (RFC 9457).

`TABLE` maps each error class to a status and a title; its `code` is the problem type.
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
    UnavailableBundleError,
    UnknownAttributeError,
    UnknownItemError,
    UnknownVersionError,
)
from service.logging_config import request_id
from service.schemas.shared import FieldError

BLANK = "about:blank"  # the status alone describes the problem
MEDIA_TYPE = "application/problem+json"
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="esans"'}
PATH_SAFE = "/:@!$&'()*+,;=~"  # not percent-encoded in a path (RFC 3986, 3.3)
UNEXPECTED = "internal error; see the service log for this request_id"

MAX_ERRORS_LISTED = 1_000  # with more, none is listed: pydantic lists all or none, 3 us each
MAX_ERRORS_REPORTED = 20
MAX_RECEIVED_CHARS = 80
ENCODER = json.JSONEncoder(ensure_ascii=False)

log = logging.getLogger("service")


class BodyTooLargeError(RequestError):
    """The body exceeds the size limit."""

    code = "body-too-large"


class BodyTimeoutError(RequestError):
    """The body was not received in time."""

    code = "body-timeout"


class InvalidRequestError(RequestError):
    """The request does not match its schema or the live bundle.

    Attributes:
        errors: the first `MAX_ERRORS_REPORTED` field errors, texts of the request truncated.
    """

    code = "invalid-request"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors: list[FieldError] = [
            {
                "location": truncate(error["location"]),
                "received": truncate(error["received"]),
                "expected": error["expected"],
            }
            for error in errors[:MAX_ERRORS_REPORTED]
        ]
        first, more = self.errors[0], len(errors) - 1
        rest = f" (and {more} more)" if more else ""
        super().__init__(f"{first['location']}: {first['expected']}{rest}")


class InvalidBodyError(InvalidRequestError):
    """The body is invalid."""

    code = "invalid-body"


class InvalidQueryError(InvalidRequestError):
    """The path or the query string is invalid."""

    code = "invalid-query"


class UnknownFilterError(InvalidRequestError):
    """A filter names an attribute that the live bundle does not support."""

    code = "unknown-attribute"


class AdminDisabledError(RequestError):
    """The admin endpoints are disabled: no token is configured."""

    code = "admin-disabled"


class UnauthorizedError(RequestError):
    """The bearer token is missing or wrong."""

    code = "unauthorized"


class NoItemEncoderError(RequestError):
    """The bundle has no item encoder."""

    code = "no-item-encoder"


class QueueFullError(RequestError):
    """The request queue is full."""

    code = "queue-full"


class QueueTimeoutError(RequestError):
    """The request waited longer than the queue timeout."""

    code = "queue-timeout"


class NoConsumerError(RequestError):
    """The request queue has no consumer: the service is starting, stopping, or has failed."""

    code = "stopped"


class BusyError(RequestError):
    """The executor has reached its limit of concurrent jobs."""

    code = "busy"


class ProblemType(NamedTuple):
    """Status and title of an error class, whose `code` is the problem type."""

    status: int
    title: str


INTERNAL = ProblemType(500, "Internal Server Error")

# Errors of offline tools are not listed: in the service they are bugs, hence INTERNAL.
TABLE: dict[type[EsansError], ProblemType] = {
    RequestError: ProblemType(422, "The request cannot be processed"),
    UnknownAttributeError: ProblemType(422, "Unknown filter attribute"),
    UnknownFilterError: ProblemType(422, "Unknown filter attribute"),
    UnknownItemError: ProblemType(404, "The item is not in the bundle"),
    InvalidRequestError: ProblemType(422, "The request is invalid"),
    InvalidQueryError: ProblemType(422, "The path or query string is invalid"),
    InvalidBodyError: ProblemType(422, "The request body is invalid"),
    BodyTimeoutError: ProblemType(408, "The request body was not received in time"),
    BodyTooLargeError: ProblemType(413, "The request body is too large"),
    NoItemEncoderError: ProblemType(409, "The bundle has no item encoder"),
    AdminDisabledError: ProblemType(403, "The admin endpoints are disabled"),
    UnauthorizedError: ProblemType(401, "The bearer token is missing or wrong"),
    BusyError: ProblemType(503, "Too many concurrent requests of this kind"),
    QueueFullError: ProblemType(503, "The request queue is full"),
    QueueTimeoutError: ProblemType(503, "The request waited too long in the queue"),
    NoConsumerError: ProblemType(503, "The service is not processing queries"),
    NoBundleError: ProblemType(503, "No bundle is live"),
    InvalidBundleError: ProblemType(503, "The bundle is invalid"),
    UnknownVersionError: ProblemType(404, "The bundle version does not exist"),
    UnavailableBundleError: ProblemType(503, "The bundle cannot be opened at the moment"),
    RejectedBundleError: ProblemType(409, "The bundle was rejected"),
    ReadOnlyBundlesError: ProblemType(409, "The bundles folder is read-only"),
    BundleError: ProblemType(503, "The bundle is unavailable"),
    ClusterStoreError: ProblemType(503, "The store operation failed"),
    StoreUnreachableError: ProblemType(503, "The store is unreachable"),
    StoreFullError: ProblemType(503, "The store is full"),
    ReadOnlyStoreError: ProblemType(409, "The store is read-only"),
    NoClusterMapError: ProblemType(404, "The cluster map does not exist"),
    IncompatibleClusterMapError: ProblemType(409, "The cluster map does not match the bundle"),
    InvalidClusterMapError: ProblemType(503, "The stored cluster map is invalid"),
    NoDenylistError: ProblemType(409, "There is no denylist to update"),
    InvalidDenylistError: ProblemType(409, "The stored denylist is invalid"),
    TooManyDeniedError: ProblemType(422, "The denylist has too many items"),
}


def problem_response(
    path: str,
    problem_type: ProblemType,
    detail: str,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> Response:
    """Render a `Problem`.

    Args:
        code: of the error; None if the status alone describes the problem.
        extensions: members beyond the standard ones.
    """
    body = {
        "type": f"urn:esans:problem:{code}" if code else BLANK,
        "title": problem_type.title,
        "status": problem_type.status,
        "detail": detail,
        "instance": quote(path, safe=PATH_SAFE),
        "request_id": request_id.get() or "",
        **(extensions or {}),
    }
    all_headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(orjson.dumps(body), problem_type.status, all_headers, MEDIA_TYPE)


def internal_problem(path: str) -> Response:
    """Render an internal error without details."""
    return problem_response(path, INTERNAL, UNEXPECTED)


def install_error_handlers(
    app: FastAPI, retry_after_s: int, on_problem: Callable[[str], None]
) -> None:
    """Register handlers that render errors as problems; a 503 carries Retry-After.

    Args:
        on_problem: called with the code of each problem.
    """

    async def handle_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, EsansError)
        problem_type = TABLE.get(type(error), INTERNAL)
        if problem_type is INTERNAL:
            log.error("request failed", exc_info=error)
            return internal_problem(request.scope["path"])
        on_problem(error.code)
        extensions: dict[str, Any] = {}
        if isinstance(error, InvalidRequestError):
            extensions["errors"] = error.errors
        if isinstance(error, RejectedBundleError):
            extensions["reasons"] = error.faults
        seconds = 1 if isinstance(error, QueueFullError | QueueTimeoutError) else retry_after_s
        headers = {503: {"Retry-After": str(seconds)}, 401: CHALLENGE}.get(problem_type.status)
        path = request.scope["path"]
        return problem_response(path, problem_type, str(error), error.code, headers, extensions)

    async def handle_invalid_query(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return await handle_error(request, build_query_error(request, error.errors()))

    app.add_exception_handler(EsansError, handle_error)
    app.add_exception_handler(RequestValidationError, handle_invalid_query)
    app.add_exception_handler(HTTPException, handle_http_error)


async def handle_http_error(request: Request, error: Exception) -> Response:
    """Render errors that the web framework raises: unknown path, method not allowed."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    path = request.scope["path"]
    detail = f"{request.method} {path}: {error.detail}; see /docs for the available endpoints"
    problem_type = ProblemType(error.status_code, phrase)
    return problem_response(path, problem_type, detail, headers=error.headers)


def build_query_error(request: Request, errors: Sequence[Any]) -> InvalidQueryError:
    """Convert FastAPI's errors of a path and its query string."""
    for error in errors:
        name, *rest = error["loc"][1:]
        if error["loc"][0] == "query" and name in request.path_params:
            name = f"{name} (in the query)"
        error["loc"] = (name, *rest)
    return InvalidQueryError(build_field_errors(errors, len(errors)))


def build_field_errors(errors: Sequence[ErrorDetails], count: int) -> list[FieldError]:
    """Convert validation errors; above `MAX_ERRORS_LISTED` only their number is reported."""
    if count > MAX_ERRORS_LISTED:
        expected = f"at most {MAX_ERRORS_LISTED} to list them; correct or split the request"
        return [{"location": "the request", "received": f"{count} errors", "expected": expected}]
    return [_build_field_error(error) for error in errors]


def _build_field_error(error: ErrorDetails) -> FieldError:
    location = ".".join(str(step) for step in error["loc"]) or "the body"
    received = "invalid JSON"
    if error["type"] != "json_invalid":
        received = _render_truncated(error["input"])
    is_extra = error["type"] == "extra_forbidden"
    expected = "no such field; remove it or correct its name" if is_extra else error["msg"]
    return {"location": location, "received": received, "expected": expected}


def truncate(text: str) -> str:
    """Shorten a text of the request to what a response repeats of it."""
    return f"{text[:MAX_RECEIVED_CHARS]}..." if len(text) > MAX_RECEIVED_CHARS else text


def _render_truncated(value: object) -> str:
    """Encode only the part that is shown: the value may be the whole body."""
    text = ""
    for piece in ENCODER.iterencode(value):
        text += piece
        if len(text) > MAX_RECEIVED_CHARS:
            break
    return text
