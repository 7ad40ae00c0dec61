"""Errors, as `application/problem+json` (RFC 9457). One table says which status each gets."""

import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote

import orjson
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from index.errors import (
    BundleError,
    ClusterStoreError,
    ConfigError,
    DatasetError,
    EsansError,
    FaultsError,
    FaultyBundleError,
    FaultyClusterMapError,
    FaultyDenyListError,
    ForeignClusterMapError,
    NoBundleError,
    NoClusterMapError,
    NoDenyListError,
    ReadOnlyBundlesError,
    ReadOnlyStoreError,
    RefusedBundleError,
    RequestError,
    StoreFullError,
    StoreUnreachableError,
    TooManyDeniedError,
    TrainingError,
    UnknownAttributeError,
    UnknownItemError,
    UnknownVersionError,
    WorseThanPopularityError,
)
from service.admission import NoConsumerError, OutOfTimeError, QueueFullError
from service.bearer import UnauthorizedError
from service.bodies import (
    BodyTooLargeError,
    InvalidBodyError,
    InvalidRequestError,
    SlowBodyError,
)
from service.embedding import NoItemEncoderError
from service.filtering import UnknownFilterError
from service.logs import request_id
from service.queries import InvalidQueryError
from service.schemas.shared import Fault, Problem
from service.side_work import BusyError

MEDIA_TYPE = "application/problem+json"
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="esans"'}
SOON_OVER = (QueueFullError, OutOfTimeError)
PATH_MARKS = "/:@!$&'()*+,;=~"  # they need no percent-encoding in a path (RFC 3986, 3.3)
UNEXPECTED = "the service failed; its log has the cause under this request_id"

log = logging.getLogger("service")


class Row(NamedTuple):
    """What an error becomes."""

    status: int
    kind: str
    title: str


INTERNAL = Row(500, "about:blank", "Internal Server Error")

TABLE: dict[type[EsansError], Row] = {
    RequestError: Row(422, "urn:esans:problem:request", "The question cannot be answered"),
    UnknownAttributeError: Row(
        422, "urn:esans:problem:unknown-attribute", "There is no such attribute to filter by"
    ),
    UnknownFilterError: Row(
        422, "urn:esans:problem:unknown-attribute", "There is no such attribute to filter by"
    ),
    UnknownItemError: Row(
        404, "urn:esans:problem:unknown-item", "The bundle does not hold this item"
    ),
    InvalidRequestError: Row(
        422, "urn:esans:problem:invalid-request", "The question is not as it must be"
    ),
    InvalidQueryError: Row(
        422, "urn:esans:problem:invalid-query", "The query is not as it must be"
    ),
    InvalidBodyError: Row(
        422, "urn:esans:problem:invalid-body", "The body is not as it must be"
    ),
    SlowBodyError: Row(408, "urn:esans:problem:slow-body", "The body came too slowly"),
    BodyTooLargeError: Row(413, "urn:esans:problem:body-too-large", "The body is too large"),
    NoItemEncoderError: Row(
        409, "urn:esans:problem:no-item-encoder", "The bundle knows no content of items"
    ),
    UnauthorizedError: Row(401, "urn:esans:problem:unauthorized", "The token is not right"),
    BusyError: Row(503, "urn:esans:problem:busy", "Too much of this is asked for at once"),
    QueueFullError: Row(503, "urn:esans:problem:queue-full", "Too many questions wait"),
    OutOfTimeError: Row(503, "urn:esans:problem:out-of-time", "The turn came too late"),
    NoConsumerError: Row(503, "urn:esans:problem:stopped", "Questions are not answered here"),
    NoBundleError: Row(503, "urn:esans:problem:no-bundle", "No bundle is live"),
    FaultyBundleError: Row(503, "urn:esans:problem:faulty-bundle", "The bundle has faults"),
    UnknownVersionError: Row(404, "urn:esans:problem:unknown-version", "No such bundle"),
    RefusedBundleError: Row(409, "urn:esans:problem:refused-bundle", "The bundle was refused"),
    ReadOnlyBundlesError: Row(
        409, "urn:esans:problem:read-only-bundles", "The bundles may not be written here"
    ),
    BundleError: Row(503, "urn:esans:problem:bundle", "The bundle cannot be used"),
    ClusterStoreError: Row(503, "urn:esans:problem:cluster-store", "The store failed"),
    StoreUnreachableError: Row(
        503, "urn:esans:problem:store-unreachable", "The store does not answer"
    ),
    StoreFullError: Row(503, "urn:esans:problem:store-full", "The store is full"),
    ReadOnlyStoreError: Row(
        409, "urn:esans:problem:read-only-store", "The store may not be written here"
    ),
    NoClusterMapError: Row(
        404, "urn:esans:problem:no-cluster-map", "There is no such cluster map"
    ),
    ForeignClusterMapError: Row(
        409, "urn:esans:problem:foreign-cluster-map", "The cluster map is of other items"
    ),
    FaultyClusterMapError: Row(
        503, "urn:esans:problem:faulty-cluster-map", "The stored cluster map has faults"
    ),
    NoDenyListError: Row(
        409, "urn:esans:problem:no-deny-list", "There is no deny list to change"
    ),
    FaultyDenyListError: Row(
        409, "urn:esans:problem:faulty-deny-list", "The stored deny list has faults"
    ),
    TooManyDeniedError: Row(422, "urn:esans:problem:too-many-denied", "Too many denied items"),
    # what follows is raised offline only; met here, it is our own mistake
    EsansError: INTERNAL,
    ConfigError: INTERNAL,
    FaultsError: INTERNAL,
    DatasetError: INTERNAL,
    TrainingError: INTERNAL,
    WorseThanPopularityError: INTERNAL,
}


def problem_response(
    path: str,
    row: Row,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    faults: Sequence[Fault] = (),
    reasons: Sequence[str] = (),
) -> Response:
    """Answer a request for this path with a problem."""
    body: Problem = {
        "type": row.kind,
        "title": row.title,
        "status": row.status,
        "detail": detail,
        "instance": quote(path, safe=PATH_MARKS),
        "request_id": request_id.get() or "",
    }
    if faults:
        body["errors"] = list(faults)
    if reasons:
        body["reasons"] = list(reasons)
    wanted = {"Cache-Control": "no-store", **(headers or {})}
    return Response(orjson.dumps(body), row.status, wanted, MEDIA_TYPE)


def internal_problem(path: str) -> Response:
    """Answer that we failed, without telling how."""
    return problem_response(path, INTERNAL, UNEXPECTED)


def install_problems(
    app: FastAPI, retry_after_s: int, on_problem: Callable[[str], None]
) -> None:
    """Let the app answer errors with problems; a 503 says when to come back.

    on_problem  told the last part of each problem's kind
    """

    async def answer_ours(request: Request, error: Exception) -> Response:
        row = TABLE[type(error)] if isinstance(error, EsansError) else INTERNAL
        if row.status == INTERNAL.status:
            log.error("request failed", exc_info=error)
            return internal_problem(request.scope["path"])
        faults = error.faults if isinstance(error, InvalidRequestError) else ()
        reasons = error.faults if isinstance(error, RefusedBundleError) else ()
        on_problem(row.kind.rpartition(":")[2])
        seconds = 1 if isinstance(error, SOON_OVER) else retry_after_s
        headers = {503: {"Retry-After": str(seconds)}, 401: CHALLENGE}.get(row.status)
        return problem_response(
            request.scope["path"],
            row,
            str(error),
            headers=headers,
            faults=faults,
            reasons=reasons,
        )

    app.add_exception_handler(EsansError, answer_ours)
    app.add_exception_handler(HTTPException, answer_http)


async def answer_http(request: Request, error: Exception) -> Response:
    """Answer what the web framework itself refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    path = request.scope["path"]
    detail = f"{request.method} {path}: {error.detail}; /docs lists what can be asked"
    row = Row(error.status_code, "about:blank", phrase)
    return problem_response(path, row, detail, headers=error.headers)
