"""OpenAPI: FastAPI describes the routes; problems get their media type here."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.schemas.shared import Problem

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


Responses = dict[int | str, dict[str, Any]]


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
