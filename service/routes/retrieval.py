"""The calls for candidates: of users, the hot path, and like an item."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Path, Query
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from service.bundle_watcher import BundleWatcher
from service.metrics import Metrics
from service.retrieval_service import RetrievalService, check_filters, filter_of
from service.routing import JsonResponse, JsonRoute, Responses, fast_route, problems
from service.schemas.retrieval import (
    BatchRequest,
    BatchResponse,
    RetrieveRequest,
    RetrieveResponse,
    SimilarQuery,
    SimilarRequest,
)
from service.schemas.shared import ID_LENGTH

ItemId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=ID_LENGTH,
        description="of the live bundle; percent-encoded, so that a slash is %2F",
        openapi_examples={"item": {"value": "sku-00042"}},
    ),
]


class AnyText(Convertor[str]):
    """A part of a path that may hold anything, slashes and line breaks too."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """Take it as it is; the server has undone the percent-encoding."""
        return value

    def to_string(self, value: str) -> str:
        """Give it as it is."""
        return value


def retrieval_routes(
    live_bundle: BundleWatcher, service: RetrievalService, metrics: Metrics
) -> APIRouter:
    """Return the routes that answer questions about users."""
    router = APIRouter(tags=["retrieval"], route_class=fast_route(metrics.total_s))

    @router.post(
        "/retrieve",
        summary="Candidates for one user",
        response_model=RetrieveResponse,
        response_description="Candidates, best first",
        responses=problems(408, 413, 422, 503),
    )
    async def retrieve(request: Request, body: RetrieveRequest) -> Response:
        live = live_bundle.get()  # once: the request ends on the bundle it began with
        if body.filter:
            check_filters(live, [("filter", body.filter)])
        (result,) = await service.retrieve(request, live, [body])
        return JsonResponse(result)

    @router.post(
        "/retrieve/batch",
        summary="Candidates for many users",
        response_model=BatchResponse,
        response_description="An answer to each question",
        responses=problems(408, 413, 422, 503),
    )
    async def retrieve_batch(request: Request, body: BatchRequest) -> Response:
        live = live_bundle.get()
        filters = enumerate(one.filter for one in body.queries)
        check_filters(live, ((f"queries.{place}.filter", one) for place, one in filters))
        results = await service.retrieve(request, live, body.queries)
        fragments = [orjson.Fragment(result) for result in results]
        return JsonResponse({"bundle": live.bundle.version, "results": fragments})

    return router


def similar_routes(
    live_bundle: BundleWatcher, service: RetrievalService, metrics: Metrics
) -> APIRouter:
    """Return the route."""
    register_url_convertor("any", AnyText())
    router = APIRouter(tags=["retrieval"], route_class=JsonRoute)

    too_long: Responses = {
        400: {
            "description": "The URL is longer than 64 KiB, or no HTTP",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    }

    @router.get(
        "/items/{item_id:any}/similar",
        summary="Items like another one",
        response_model=RetrieveResponse,
        response_description="Candidates, best first",
        responses=problems(404, 422, 503) | too_long,
    )
    async def similar(
        request: Request, item_id: ItemId, query: Annotated[SimilarQuery, Query()]
    ) -> Response:
        with metrics.total_s.time():
            live = live_bundle.get()
            check_filters(live, [("filter", filter_of(query.filter))])
            wanted = SimilarRequest.model_construct(item_id=item_id, **dict(query))
            (result,) = await service.retrieve(request, live, [wanted])
            return JsonResponse(result)

    return router
