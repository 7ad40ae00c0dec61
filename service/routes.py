"""The calls. A route reads, asks the live bundle, writes; the work itself lives in `index`."""

from functools import partial
from itertools import zip_longest

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from index.retriever import Answer, Question
from service.admission import Admission
from service.bodies import json_response, read_body
from service.live_bundle import LiveBundle
from service.live_clusters import Joined, LiveClusters
from service.metrics import Metrics, timed
from service.openapi import answers, reads
from service.schemas import (
    Alive,
    BundleAnswer,
    Readiness,
    RetrieveAnswer,
    RetrieveRequest,
)

NO_STORE = {"Cache-Control": "no-store"}
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def retrieval_routes(
    live_bundle: LiveBundle,
    live_clusters: LiveClusters,
    admission: Admission,
    metrics: Metrics,
    limit_bytes: int,
) -> APIRouter:
    """Return the routes that answer questions."""
    router = APIRouter(tags=["retrieval"])
    find_s, total_s = metrics.stages.labels("find"), metrics.stages.labels("total")

    @router.post(
        "/retrieve",
        summary="Candidates for one user",
        openapi_extra=reads(RetrieveRequest),
        responses=answers("Candidates, best first", RetrieveAnswer, 413, 422, 503),
        response_class=Response,
    )
    async def retrieve(request: Request) -> Response:
        with total_s.time():
            asked = await read_body(request, RetrieveRequest, limit_bytes)
            live = live_bundle.get()  # once: the request ends on the bundle it began with
            find = partial(live.retriever.find, question_of(asked))
            answer = await admission.run(request, partial(timed, find_s, find))
            metrics.count_answer(answer, asked.k)
            told = answer_of(live.bundle.version, answer)
            if "clusters" in asked.include:
                add_clusters(told, live_clusters.current())
            return json_response(told, headers=NO_STORE)

    return router


def question_of(asked: RetrieveRequest) -> Question:
    """Put a request into the index's words."""
    return Question(
        count=asked.k,
        user_id=asked.user_id,
        history=asked.history,
        exclude=asked.exclude,
        exclude_seen=asked.exclude_seen,
    )


def answer_of(version: str, answer: Answer) -> RetrieveAnswer:
    """Put the index's answer into the caller's words."""
    scores = [None] * len(answer.item_ids) if answer.scores is None else answer.scores
    told: RetrieveAnswer = {
        "bundle": version,
        "candidates": [
            {"item_id": item_id, "score": score}
            for item_id, score in zip(answer.item_ids, scores, strict=True)
        ],
    }
    if answer.fallback:
        told["fallback"] = answer.fallback
    if answer.unknown:
        told["unknown_items"] = answer.unknown
    return told


def add_clusters(told: RetrieveAnswer, joined: Joined | None) -> None:
    """Tell each candidate's codes, and in which map; found by id: the map follows a bundle."""
    candidates = told["candidates"]
    codes = joined.codes_of([one["item_id"] for one in candidates]) if joined else []
    for candidate, own in zip_longest(candidates, codes):
        candidate["cluster"] = own
    if joined:
        told["clusters"] = joined.version


def state_routes(
    live_bundle: LiveBundle, live_clusters: LiveClusters, metrics: Metrics
) -> APIRouter:
    """Return the routes that tell how the service is."""
    router = APIRouter(tags=["state"])

    @router.get(
        "/livez",
        summary="Does the process answer?",
        responses=answers("It does", Alive),
        response_class=Response,
    )
    async def livez() -> Response:
        told: Alive = {"status": "alive"}
        return json_response(told, headers=NO_STORE)

    ready = answers("A bundle is live", Readiness)
    ready[503] = {**ready[200], "description": "Not ready, and why"}

    @router.get(
        "/health", summary="The same as /readyz", responses=ready, response_class=Response
    )
    @router.get(
        "/readyz", summary="Is a bundle live?", responses=ready, response_class=Response
    )
    async def readyz() -> Response:
        told = live_bundle.readiness()
        if followed := live_clusters.told():
            told["clusters"] = followed
        return json_response(told, 200 if told["status"] == "ready" else 503, NO_STORE)

    described = answers("The live bundle", BundleAnswer, 503)
    described[304] = {"description": "Not changed since the ETag in If-None-Match"}

    @router.get(
        "/bundle",
        summary="The manifest of what is live",
        responses=described,
        response_class=Response,
    )
    async def bundle(request: Request) -> Response:
        live = live_bundle.get().bundle
        headers = {"ETag": f'"{live.version}"', "Cache-Control": "no-cache"}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        manifest = live.manifest.model_dump(mode="json")
        return json_response({"version": live.version, "manifest": manifest}, headers=headers)

    @router.get(
        "/metrics",
        summary="What Prometheus reads",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )
    async def metrics_text() -> Response:
        return Response(metrics.written(), media_type=METRICS_TYPE)

    return router
