"""Retrieval routes: candidates for users, which is the hot path, and similar items."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from index.ids import MAX_ID_LENGTH
from service.bundle_watcher import BundleWatcher
from service.json_encoder import encode_json
from service.metrics import Metrics
from service.retrieval_service import (
    RetrievalService,
    group_queries,
    parse_filter,
    validate_filters,
)
from service.routing import JsonResponse, JsonRoute, Responses, fast_route, problem_responses
from service.schemas.retrieval import (
    BatchRequest,
    BatchResponse,
    RetrieveRequest,
    RetrieveResponse,
    SimilarQuery,
    SimilarRequest,
)

ItemId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=MAX_ID_LENGTH,
        description="Item id in the live bundle, percent-encoded: a slash is `%2F`.",
        openapi_examples={"item": {"value": "sku-00042"}},
    ),
]


class AnyTextConvertor(Convertor[str]):
    """Path segment of any characters, including slashes and line breaks."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """Return the value, which the server has percent-decoded."""
        return value

    def to_string(self, value: str) -> str:
        """Return the value."""
        return value


def retrieval_routes(
    live_bundle: BundleWatcher, service: RetrievalService, metrics: Metrics
) -> APIRouter:
    """Return the routes for candidates of users."""
    router = APIRouter(tags=["retrieval"], route_class=fast_route(metrics.total_s))

    @router.post(
        "/retrieve",
        summary="Candidates for a user",
        response_model=RetrieveResponse,
        response_description="Candidates, best first",
        responses=problem_responses(408, 413, 422, 503),
    )
    async def retrieve(request: Request, body: RetrieveRequest) -> Response:
        """Return up to `k` candidates, best first, for a `history` of item ids or a `user_id`.

        Excluded, seen, denied and filtered items are never returned. Without a usable history
        the candidates are popular items, and `fallback` says why.
        """
        live = live_bundle.get()  # once: the whole request uses this bundle
        if body.filter:
            validate_filters(live, [("filter", body.filter)])
        (result,) = await service.retrieve(request, live, [body])
        return JsonResponse(result)

    @router.post(
        "/retrieve/batch",
        summary="Candidates for many users",
        response_model=BatchResponse,
        response_description="One result per query",
        responses=problem_responses(408, 413, 422, 503),
    )
    async def retrieve_batch(request: Request, body: BatchRequest) -> Response:
        """Process up to 256 queries of `/retrieve` at once, all from the same bundle.

        Each query has the same result as alone. An invalid query rejects the whole request.
        """
        live = live_bundle.get()
        filters = (
            (f"queries.{row}.filter", query.filter) for row, query in enumerate(body.queries)
        )
        validate_filters(live, filters)
        is_streamed = request.scope["http_version"] != "1.0"
        groups = group_queries(body.queries) if is_streamed else [body.queries]
        parts = service.stream(request, live, groups)
        first = await anext(parts)  # its errors are problems; later ones close the connection
        if len(groups) == 1:
            return JsonResponse(b"".join([*begin_batch(live.bundle.version, first), b"]}"]))
        return StreamingResponse(
            write_batch(live.bundle.version, first, parts),
            media_type=JsonResponse.media_type,
            headers={"Cache-Control": "no-store"},
        )

    return router


async def write_batch(
    version: str, first: list[bytes], parts: AsyncIterator[list[bytes]]
) -> AsyncIterator[bytes]:
    """Write a `BatchResponse` part by part."""
    yield b"".join(begin_batch(version, first))
    async for results in parts:
        yield b"".join(b"," + result for result in results)
    yield b"]}"


def begin_batch(version: str, first: list[bytes]) -> list[bytes]:
    """Return the beginning of a `BatchResponse`, up to the last result of its first part."""
    return [b'{"bundle":', encode_json(version), b',"results":[', b",".join(first)]


def similar_routes(
    live_bundle: BundleWatcher, service: RetrievalService, metrics: Metrics
) -> APIRouter:
    """Return the similar-items route."""
    register_url_convertor("any", AnyTextConvertor())
    router = APIRouter(tags=["retrieval"], route_class=JsonRoute)

    too_long: Responses = {
        400: {
            "description": "The URL is longer than 64 KiB, or the request is not valid HTTP.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    }

    @router.get(
        "/items/{item_id:any}/similar",
        summary="Items similar to an item",
        response_model=RetrieveResponse,
        response_description="Candidates, best first",
        responses=problem_responses(404, 422, 503) | too_long,
    )
    async def similar(
        request: Request, item_id: ItemId, query: Annotated[SimilarQuery, Query()]
    ) -> Response:
        """Return the items whose vectors are most similar, without the item itself.

        The item must be in the live bundle; users and histories play no role.
        """
        with metrics.total_s.time():
            live = live_bundle.get()
            validate_filters(live, [("filter", parse_filter(query.filter))])
            body = SimilarRequest.model_construct(item_id=item_id, **dict(query))
            (result,) = await service.retrieve(request, live, [body])
            return JsonResponse(result)

    return router
