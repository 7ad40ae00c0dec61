"""Routes: how bodies and query strings reach the schemas, and how OpenAPI describes problems."""

import hmac
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, cast

from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from prometheus_client import Histogram
from pydantic import BaseModel, ValidationError
from starlette.background import BackgroundTask
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from service.errors import MAX_FAULTS_READ, InvalidBodyError, UnauthorizedError, faults_of
from service.json_encoder import json_bytes
from service.schemas.shared import Problem

BEARER = b"bearer "
PROBLEM_REF = "#/components/schemas/Problem"
DESCRIPTIONS = {
    401: "The bearer token is missing or wrong",
    404: "No such thing",
    408: "The body did not come in time",
    405: "Not with this method",
    409: "Not as things are: the bundle cannot do this, was refused, or may not be written",
    413: "The body is too large",
    422: "The question is not as it must be",
    500: "The service failed",
    503: "Not now: no bundle is live, or what is asked for is out of reach or busy",
}

Model = TypeVar("Model", bound=BaseModel)
Responses = dict[int | str, dict[str, Any]]
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


def problems(*statuses: int) -> Responses:
    """Describe the problems of a route, for `responses`; each may fail with 500."""
    return {
        status: {"model": Problem, "description": DESCRIPTIONS[status]}
        for status in (*statuses, 500)
    }


def complete_openapi(app: FastAPI) -> None:
    """Let the app describe problems as application/problem+json."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            _correct(app.openapi_schema)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's manual shows


def _correct(node: dict[str, Any]) -> None:
    """Name the media type of problems, and write whole bounds as integers, to the last bit."""
    if node.get("application/json", {}) == {"schema": {"$ref": PROBLEM_REF}}:
        node["application/problem+json"] = node.pop("application/json")
    for key, value in node.items():
        if isinstance(value, float) and value.is_integer():
            node[key] = int(value)
        for deeper in value if isinstance(value, list) else [value]:
            if isinstance(deeper, dict):
                _correct(deeper)
