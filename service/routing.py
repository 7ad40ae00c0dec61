"""Route classes and responses: how bodies and query strings reach the schemas."""

import hmac
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar, cast

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from prometheus_client import Histogram
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.background import BackgroundTask
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from service.errors import InvalidBodyError, UnauthorizedError
from service.json_encoder import json_bytes
from service.schemas.shared import Fault

MAX_FAULTS_READ = 1_000  # of one with more, none: pydantic lists all or none, 3 us each
FOUND_LENGTH = 80
ENCODER = json.JSONEncoder(ensure_ascii=False)
BEARER = b"bearer "

Model = TypeVar("Model", bound=BaseModel)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JsonResponse(JSONResponse):
    """A JSON response that no cache stores; bytes are sent as they are."""

    def __init__(
        self,
        content: object,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        headers = {"Cache-Control": "no-store", **(headers or {})}
        super().__init__(content, status_code, headers, background=background)

    def render(self, content: object) -> bytes:
        """Return the body."""
        return content if isinstance(content, bytes) else json_bytes(content)


def fast_route(duration: Histogram) -> type[APIRoute]:
    """Return the class of routes on the hot path, which FastAPI describes as any other.

    Args:
        duration: observes each request, from reading the body on.
    """

    class FastRoute(APIRoute):
        """Calls its endpoint with request and validated body; solves no dependencies."""

        def get_route_handler(self) -> Handler:
            """Return the handler of the route."""
            endpoint, schema = self.endpoint, body_schema(self)
            assert schema is not None

            async def handle(request: Request) -> Response:
                with duration.time():
                    body = validate_body(await read_body(request), schema)
                    response: Response = await endpoint(request, body)
                    return response

            return handle

    return FastRoute


class JsonRoute(APIRoute):
    """An ordinary route whose body is validated by pydantic's own JSON parser.

    So bodies need no content type, and messages and the number of faults are bounded.
    """

    def get_route_handler(self) -> Handler:
        """Return the handler of the route."""
        handle, schema = super().get_route_handler(), body_schema(self)

        async def handle_validated(request: Request) -> Response:
            body = await read_body(request)  # of GET too: what comes after it is a disconnect
            model = validate_body(body, schema) if schema else None
            return await handle(ValidatedRequest(request, model))

        return handle_validated


class ValidatedRequest(Request):
    """A request whose body is a validated model, which FastAPI takes as it is."""

    def __init__(self, request: Request, model: BaseModel | None) -> None:
        super().__init__(request.scope, request.receive)
        self._model = model

    async def body(self) -> Any:  # noqa: ANN401  # bytes to starlette, any value to FastAPI
        """Return the model."""
        return self._model

    async def json(self) -> Any:  # noqa: ANN401  # as starlette's own
        """Return the model."""
        return self._model

    @property
    def query_params(self) -> QueryParams:
        """Return the query string; a repeated parameter is a list for its schema to judge."""
        return _StrictQueryParams(self.scope["query_string"])


class _StrictQueryParams(QueryParams):
    def get(self, key: Any, default: Any = None) -> Any:  # noqa: ANN401  # as starlette's own
        values = self.getlist(key)
        return values if len(values) > 1 else super().get(key, default)


def admin_router(token: str) -> APIRouter:
    """Return a router for operators, whose routes ask for the bearer token first."""

    class AdminRoute(JsonRoute):
        """Refuses requests without the token before it reads their bodies."""

        def get_route_handler(self) -> Handler:
            """Return the handler of the route."""
            handle = super().get_route_handler()

            async def handle_authorized(request: Request) -> Response:
                check_token(request, token)
                return await handle(request)

            return handle_authorized

    return APIRouter(
        tags=["admin"],
        prefix="/admin",
        route_class=AdminRoute,
        default_response_class=JsonResponse,
        dependencies=[Depends(HTTPBearer(scheme_name="bearer", auto_error=False))],
    )


def check_token(request: Request, token: str) -> None:
    """Compare the bearer token in constant time; raises UnauthorizedError."""
    said = request.headers.get("authorization", "").encode("latin-1", errors="replace")
    is_bearer = said[: len(BEARER)].lower() == BEARER
    if not hmac.compare_digest(said[len(BEARER) :].strip(), token.encode()) or not is_bearer:
        raise UnauthorizedError(
            f"{request.method} {request.scope['path']}: the bearer token is missing or wrong; "
            "send `Authorization: Bearer TOKEN` with the ESANS_ADMIN_TOKEN of this service"
        )


def body_schema(route: APIRoute) -> type[BaseModel] | None:
    """Return the model of a route's body, if it has one."""
    field = route.body_field
    return cast(type[BaseModel], field.field_info.annotation) if field else None


async def read_body(request: Request) -> bytes:
    """Read a body, which `BodyLimit` bounds and delivers whole; raises ClientDisconnect."""
    message = await request.receive()
    if message["type"] != "http.request":
        raise ClientDisconnect
    body: bytes = message["body"]
    return body


def validate_body(body: bytes, schema: type[Model]) -> Model:
    """Validate a JSON body; raises InvalidBodyError with every fault."""
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        count = error.error_count()
        is_read = count <= MAX_FAULTS_READ
        errors = error.errors(include_url=False) if is_read else ()
        raise InvalidBodyError(faults_of(errors, count)) from error


def faults_of(errors: Sequence[ErrorDetails], count: int) -> list[Fault]:
    """Describe the faults that a schema found; of very many, their number alone."""
    if count > MAX_FAULTS_READ:
        expected = f"{MAX_FAULTS_READ} at most, to be told them; correct it, or send a part of it"
        return [{"place": "the question", "found": f"{count} faults", "expected": expected}]
    return [_fault(one) for one in errors]


def _fault(error: ErrorDetails) -> Fault:
    place = ".".join(str(step) for step in error["loc"]) or "the body"
    found = "text that is no JSON"
    if error["type"] != "json_invalid":
        found = _beginning(error["input"])
    is_extra = error["type"] == "extra_forbidden"
    expected = "no such key here; remove it or correct its name" if is_extra else error["msg"]
    return {"place": place, "found": found, "expected": expected}


def _beginning(value: object) -> str:
    """Write no more of a value than is shown: it may be the whole body."""
    written = ""
    for piece in ENCODER.iterencode(value):
        written += piece
        if len(written) > FOUND_LENGTH:
            return f"{written[:FOUND_LENGTH]}..."
    return written
