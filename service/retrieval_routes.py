"""The calls for candidates. A route reads, asks, writes; the work itself lives in `index`."""

from functools import partial

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.admission import Admission
from service.answering import add_clusters, answer_of, question_of
from service.bodies import NO_STORE, BodyLimits, json_response, read_body
from service.live_bundle import LiveBundle
from service.live_clusters import LiveClusters
from service.metrics import Metrics, timed
from service.openapi import answers, reads
from service.retrieval_schemas import RetrieveAnswer, RetrieveRequest


def retrieval_routes(
    live_bundle: LiveBundle,
    live_clusters: LiveClusters,
    admission: Admission,
    metrics: Metrics,
    limits: BodyLimits,
) -> APIRouter:
    """Return the routes that answer questions."""
    router = APIRouter(tags=["retrieval"])
    find_s, total_s = metrics.stages.labels("find"), metrics.stages.labels("total")

    @router.post(
        "/retrieve",
        summary="Candidates for one user",
        openapi_extra=reads(RetrieveRequest),
        responses=answers("Candidates, best first", RetrieveAnswer, 408, 413, 422, 503),
        response_class=Response,
    )
    async def retrieve(request: Request) -> Response:
        with total_s.time():
            asked = await read_body(request, RetrieveRequest, limits)
            live = live_bundle.get()  # once: the request ends on the bundle it began with
            find = partial(live.retriever.find, question_of(asked), live.denied)
            answer = await admission.run(request, partial(timed, find_s, find))
            metrics.count_answer(answer, asked.k)
            told = answer_of(live.bundle.version, answer)
            if "clusters" in asked.include:
                add_clusters(told, live_clusters.current())
            return json_response(told, headers=NO_STORE)

    return router
