"""The calls for candidates. A route reads, asks, writes; the work itself lives in `index`."""

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.answering import prepare_users
from service.bodies import NO_STORE, BodyLimits, json_response, read_body, written_response
from service.filtering import refuse_unknown
from service.finding import Finder
from service.metrics import Metrics
from service.openapi import answers, reads
from service.schemas.retrieval import (
    BatchAnswer,
    BatchRequest,
    RetrieveAnswer,
    RetrieveRequest,
)
from service.state.bundle_watcher import LiveBundle


def retrieval_routes(
    live_bundle: LiveBundle, finder: Finder, metrics: Metrics, limits: BodyLimits
) -> APIRouter:
    """Return the routes that answer questions about users."""
    router = APIRouter(tags=["retrieval"])

    @router.post(
        "/retrieve",
        summary="Candidates for one user",
        openapi_extra=reads(RetrieveRequest),
        responses=answers("Candidates, best first", RetrieveAnswer, 408, 413, 422, 503),
        response_class=Response,
    )
    async def retrieve(request: Request) -> Response:
        with metrics.total_s.time():
            asked = await read_body(request, RetrieveRequest, limits)
            live = live_bundle.get()  # once: the request ends on the bundle it began with
            if asked.filter:
                refuse_unknown(live, [("filter", asked.filter)])
            body = await finder.answer_one(request, live, asked)
            return written_response(body, headers=NO_STORE)

    @router.post(
        "/retrieve/batch",
        summary="Candidates for many users",
        openapi_extra=reads(BatchRequest),
        responses=answers("An answer to each question", BatchAnswer, 408, 413, 422, 503),
        response_class=Response,
    )
    async def retrieve_batch(request: Request) -> Response:
        with metrics.total_s.time():
            asked = await read_body(request, BatchRequest, limits)
            live = live_bundle.get()
            filters = (one.filter for one in asked.questions)
            refuse_unknown(
                live, ((f"questions.{n}.filter", one) for n, one in enumerate(filters))
            )
            bodies = await finder.answer(request, live, prepare_users, asked.questions)
            told = [orjson.Fragment(body) for body in bodies]
            whole = {"bundle": live.bundle.version, "answers": told}
            return json_response(whole, headers=NO_STORE)

    return router
