"""The call for vectors."""

from itertools import chain

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.admission import Admission
from service.bodies import NO_STORE, BodyLimits, json_response, read_body
from service.embedding import answer_of, works_of
from service.openapi import answers, reads
from service.schemas.embed import EmbedAnswer, EmbedRequest
from service.state.bundle_watcher import LiveBundle


def embed_routes(
    live_bundle: LiveBundle, admission: Admission, limits: BodyLimits
) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["vectors"])

    @router.post(
        "/embed",
        summary="Vectors of users, or of items from their raw features",
        openapi_extra=reads(EmbedRequest),
        responses=answers("A vector for each", EmbedAnswer, 409, 408, 413, 422, 503),
        response_class=Response,
    )
    async def embed(request: Request) -> Response:
        asked = await read_body(request, EmbedRequest, limits)
        live = live_bundle.get()
        parts = await admission.run_all(request, works_of(live, asked))
        told = answer_of(live.bundle.version, list(chain(*parts)))
        return json_response(told, headers=NO_STORE)

    return router
