"""Route classes that validate bodies and query strings, and OpenAPI descriptions of problems."""

import hmac
import json
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
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

from index.fsio import list_duplicate_keys
from service.errors import (
    MAX_ERRORS_LISTED,
    AdminDisabledError,
    InvalidBodyError,
    UnauthorizedError,
    build_field_errors,
)
from service.executor import BoundedExecutor
from service.json_encoder import encode_json
from service.schemas.shared import Problem, fill_examples

BEARER = b"bearer "
END_OF_KEY = re.compile(rb'"[ \t\r\n]*:')  # or an escaped quote and a colon in a text
MAX_INLINE_BODY_BYTES = 1 << 16  # parsed in the event loop, below a millisecond if plain
PROBLEM_REF = "#/components/schemas/Problem"
ADMIN_PREFIX = "/admin"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
DESCRIPTIONS = {
    401: "The bearer token is missing or wrong.",
    404: "The resource does not exist.",
    408: "The request body was not received in time.",
    405: "The method is not allowed.",
    409: "The current state does not allow this: the bundle does not support it, was rejected, "
    "or is read-only.",
    413: "The request body is too large.",
    422: "The request is invalid.",
    500: "Internal error.",
    503: "Temporarily unavailable: no bundle is live, the service is overloaded, or a store is "
    "unreachable.",
}

Model = TypeVar("Model", bound=BaseModel)
Responses = dict[int | str, dict[str, Any]]
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JsonResponse(JSONResponse):
    """JSON response with `Cache-Control: no-store`; bytes are sent unchanged."""

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
        """Return the encoded body."""
        return content if isinstance(content, bytes) else encode_json(content)


def fast_route(duration: Histogram) -> type[APIRoute]:
    """Return the route class of the hot path; its OpenAPI description is FastAPI's own.

    Args:
        duration: observes each request, including the time to read its body.
    """

    class FastRoute(APIRoute):
        """Calls its endpoint with request and validated body, without dependency injection."""

        def get_route_handler(self) -> Handler:
            """Return the handler of the route."""
            endpoint, schema = self.endpoint, get_body_schema(self)
            assert schema is not None

            async def handle(request: Request) -> Response:
                with duration.time():
                    body = await parse_body(request, schema)
                    response: Response = await endpoint(request, body)
                    return response

            return handle

    return FastRoute


class JsonRoute(APIRoute):
    """FastAPI route whose body is validated by pydantic's JSON parser.

    Bodies need no content type, and the number and length of error messages are bounded.
    """

    def get_route_handler(self) -> Handler:
        """Return the handler of the route."""
        handle, schema = super().get_route_handler(), get_body_schema(self)

        async def handle_validated(request: Request) -> Response:
            if schema is None:
                await read_body(request)  # of GET too: the next message is a disconnect
                return await handle(ValidatedRequest(request, None))
            return await handle(ValidatedRequest(request, await parse_body(request, schema)))

        return handle_validated


class ValidatedRequest(Request):
    """Request whose body is a validated model, which FastAPI accepts unchanged."""

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
        """Return the parameters; a repeated one is a list, which its schema accepts or rejects."""
        return _StrictQueryParams(self.scope["query_string"])


class _StrictQueryParams(QueryParams):
    def get(self, key: Any, default: Any = None) -> Any:  # noqa: ANN401  # as starlette's own
        values = self.getlist(key)
        return values if len(values) > 1 else super().get(key, default)


def add_routes(app: FastAPI, router: APIRouter) -> None:
    """Add the routes of a router as they are.

    `FastAPI.include_router` would build them all once more, in the first request.
    """
    app.router.routes.extend(router.routes)


def admin_router(token: str) -> APIRouter:
    """Return the router of the admin endpoints, which require the bearer token."""

    class AdminRoute(JsonRoute):
        """Rejects requests without the token before reading their bodies."""

        def get_route_handler(self) -> Handler:
            """Return the handler of the route."""
            handle = super().get_route_handler()

            async def handle_authorized(request: Request) -> Response:
                validate_token(request, token)
                return await handle(request)

            return handle_authorized

    return APIRouter(
        tags=["admin"],
        prefix=ADMIN_PREFIX,
        route_class=AdminRoute,
        default_response_class=JsonResponse,
        dependencies=[Depends(HTTPBearer(scheme_name="bearer", auto_error=False))],
    )


def disabled_admin_router() -> APIRouter:
    """Return a router that says for every admin path how to enable the admin endpoints."""
    router = APIRouter(prefix=ADMIN_PREFIX)

    @router.api_route("/{path:path}", methods=METHODS, include_in_schema=False)
    async def reject(request: Request) -> Response:
        raise AdminDisabledError(
            f"{request.method} {request.scope['path']}: no admin token is configured, so the admin "
            "endpoints are disabled; start the service with ESANS_ADMIN_TOKEN or "
            "ESANS_ADMIN_TOKEN_FILE set"
        )

    return router


def validate_token(request: Request, token: str) -> None:
    """Compare the bearer token in constant time; raises UnauthorizedError."""
    header = request.headers.get("authorization", "").encode("latin-1", errors="replace")
    is_bearer = header[: len(BEARER)].lower() == BEARER
    if not hmac.compare_digest(header[len(BEARER) :].strip(), token.encode()) or not is_bearer:
        raise UnauthorizedError(
            f"{request.method} {request.scope['path']}: the bearer token is missing or wrong; "
            "send `Authorization: Bearer TOKEN` with the ESANS_ADMIN_TOKEN of this service"
        )


def get_body_schema(route: APIRoute) -> type[BaseModel] | None:
    """Return the model of a route's body, or None."""
    field = route.body_field
    return cast(type[BaseModel], field.field_info.annotation) if field else None


async def read_body(request: Request) -> bytes:
    """Read the body, which `BodyLimit` delivers in one message; raises ClientDisconnect."""
    message = await request.receive()
    if message["type"] != "http.request":
        raise ClientDisconnect
    body: bytes = message["body"]
    return body


async def parse_body(request: Request, schema: type[Model]) -> Model:
    """Read and validate a JSON body; a large one in the executor, as it takes milliseconds.

    Raises:
        InvalidBodyError: with every field error.
        BusyError: too many large bodies wait.
    """
    body = await read_body(request)
    if len(body) <= MAX_INLINE_BODY_BYTES:
        return validate_body(body, schema)
    executor: BoundedExecutor = request.app.state.large_bodies
    return await executor.run(partial(validate_body, body, schema))


def validate_body(body: bytes, schema: type[Model]) -> Model:
    """Validate a JSON body; raises InvalidBodyError with every field error."""
    try:
        model = schema.model_validate_json(body)
    except ValidationError as error:
        count = error.error_count()
        is_listed = count <= MAX_ERRORS_LISTED
        errors = error.errors(include_url=False) if is_listed else ()
        raise InvalidBodyError(build_field_errors(errors, count)) from error
    reject_duplicate_keys(body, model)
    return model


def reject_duplicate_keys(body: bytes, model: BaseModel) -> None:
    """Raise InvalidBodyError if an object of a valid body repeats a key; parsers keep the last.

    The body is parsed again only if it seems to have more keys than the model.
    """
    count = count_keys(model)
    if body.count(b":") == count or len(END_OF_KEY.findall(body)) == count:
        return
    duplicates: list[str] = []

    def collect(pairs: list[tuple[str, object]]) -> None:
        duplicates.extend(list_duplicate_keys(pairs))

    json.loads(body.decode(), object_pairs_hook=collect)
    if duplicates:
        raise InvalidBodyError(
            [
                {"location": name, "received": "a repeated key", "expected": "each key once"}
                for name in duplicates
            ]
        )


def count_keys(value: object) -> int:
    """Count the keys of a parsed document, of all its objects."""
    if isinstance(value, BaseModel):
        names = value.model_fields_set
        return len(names) + sum(count_keys(getattr(value, name)) for name in names)
    if isinstance(value, dict):
        return len(value) + sum(map(count_keys, value.values()))
    if isinstance(value, list) and value and isinstance(value[0], BaseModel | dict):
        return sum(map(count_keys, value))
    return 0


def problem_responses(*statuses: int) -> Responses:
    """Return the OpenAPI `responses` of a route for these statuses and 500."""
    return {
        status: {"model": Problem, "description": DESCRIPTIONS[status]}
        for status in (*statuses, 500)
    }


def install_openapi(app: FastAPI, list_item_ids: Callable[[], Sequence[str]]) -> None:
    """Make the app's OpenAPI schema describe problems, with examples that work.

    Args:
        list_item_ids: returns ids of the live bundle to fill into the examples.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _fix_schema(app.openapi_schema)
        return fill_examples(app.openapi_schema, list_item_ids())

    app.openapi = openapi  # type: ignore[method-assign]  # the override that FastAPI documents


def _fix_schema(node: dict[str, Any]) -> None:
    """Set the media type of problems, and make whole bounds exact integers."""
    if node.get("application/json", {}) == {"schema": {"$ref": PROBLEM_REF}}:
        node["application/problem+json"] = node.pop("application/json")
    for key, value in node.items():
        if isinstance(value, float) and value.is_integer():
            node[key] = int(value)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, dict):
                _fix_schema(child)
