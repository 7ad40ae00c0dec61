"""/openapi.json in full: routes read raw bodies, so the schemas are put in here by hand."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter

from service.schemas import bundle, clusters, deny, embed, retrieval, shared, state

REF = "#/components/schemas/{model}"
BEARER = "bearer"  # the name of the one security scheme
QUESTIONS = (
    retrieval.RetrieveRequest,
    retrieval.BatchRequest,
    embed.EmbedRequest,
    clusters.NegativesRequest,
    clusters.PointerRequest,
    bundle.RollbackRequest,
    deny.DenyRequest,
)
ANSWERS: tuple[Any, ...] = (
    retrieval.RetrieveAnswer,
    retrieval.BatchAnswer,
    state.Alive,
    state.Readiness,
    state.BundleAnswer,
    embed.EmbedAnswer,
    clusters.ClustersAnswer,
    clusters.NegativesAnswer,
    clusters.PointerAnswer,
    bundle.ReloadAnswer,
    bundle.RollbackAnswer,
    deny.DenyChangeAnswer,
    shared.Problem,
)
WHAT_IS_MEANT = {
    304: "Not changed since the ETag that was sent",
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


def reads(question: type) -> dict[str, Any]:
    """Describe a route's body; for `openapi_extra`."""
    return {"requestBody": {"required": True, "content": {"application/json": _as(question)}}}


def asks(question: type[BaseModel], in_path: Sequence[str]) -> dict[str, Any]:
    """Describe a route's parameters, those in the path and those in the query string."""
    described = question.model_json_schema()["properties"]
    return {"parameters": [_asked(name, in_path, one) for name, one in described.items()]}


def _asked(name: str, in_path: Sequence[str], schema: dict[str, Any]) -> dict[str, Any]:
    told = {
        "name": name,
        "in": "path" if name in in_path else "query",
        "required": name in in_path,
        "description": schema.pop("description"),
        "schema": schema,
    }
    if "examples" in schema:  # the page fills in what stands beside the schema, not in it
        told["example"] = schema.pop("examples")[0]
    return told


def answers(meaning: str, answer: type, *problem_statuses: int) -> dict[int | str, Any]:
    """Describe a route's answer and its problems; for `responses`."""
    told: dict[int | str, Any] = {
        200: {"description": meaning, "content": {"application/json": _as(answer)}}
    }
    for status in (*problem_statuses, 500):
        content = {"application/problem+json": _as(shared.Problem)}
        told[status] = {"description": WHAT_IS_MEANT[status], "content": content}
    return told


def _as(schema: type) -> dict[str, Any]:
    return {"schema": {"$ref": REF.format(model=schema.__name__)}}


def complete_openapi(app: FastAPI) -> None:
    """Let the app describe itself with the schemas that the routes refer to."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            told = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            parts = told.setdefault("components", {})
            parts.setdefault("schemas", {}).update(_definitions())
            parts["securitySchemes"] = {BEARER: {"type": "http", "scheme": "bearer"}}
            app.openapi_schema = told
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # the way FastAPI's manual shows


def _definitions() -> dict[str, Any]:
    wanted = [(one, "validation", TypeAdapter(one)) for one in QUESTIONS]
    wanted += [(one, "serialization", TypeAdapter(one)) for one in ANSWERS]
    _, rest = TypeAdapter.json_schemas(wanted, ref_template=REF)  # type: ignore[arg-type]
    definitions: dict[str, Any] = rest["$defs"]
    return definitions
