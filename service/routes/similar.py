"""The call for items like another one."""

from fastapi import APIRouter
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from service.answering import prepare_similar
from service.bodies import NO_STORE, written_response
from service.filtering import filter_of, refuse_unknown
from service.finding import Finder
from service.metrics import Metrics
from service.openapi import answers, asks
from service.queries import read_query
from service.schemas.retrieval import RetrieveAnswer
from service.schemas.similar import SimilarRequest
from service.state.bundle_watcher import LiveBundle


class AnyText(Convertor[str]):
    """A part of a path that may hold anything, slashes and line breaks too."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """Take it as it is; the server has undone the percent-encoding."""
        return value

    def to_string(self, value: str) -> str:
        """Give it as it is."""
        return value


def similar_routes(live_bundle: LiveBundle, finder: Finder, metrics: Metrics) -> APIRouter:
    """Return the route."""
    register_url_convertor("any", AnyText())
    router = APIRouter(tags=["retrieval"])

    described = answers("Candidates, best first", RetrieveAnswer, 404, 422, 503)
    described[400] = {
        "description": "The URL is longer than 64 KiB, or no HTTP",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }

    @router.get(
        "/items/{item_id:any}/similar",
        summary="Items like another one",
        openapi_extra=asks(SimilarRequest, in_path=("item_id",)),
        responses=described,
        response_class=Response,
    )
    async def similar(request: Request) -> Response:
        with metrics.total_s.time():
            asked = read_query(request, SimilarRequest)
            live = live_bundle.get()
            refuse_unknown(live, [("filter", filter_of(asked.filter))])
            (body,) = await finder.answer(request, live, prepare_similar, [asked])
            return written_response(body, headers=NO_STORE)

    return router
