"""The operator's calls about bundles: look now, roll back; behind the bearer token."""

from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from index.shelf import Shelf
from service.bearer import check_token
from service.bodies import NO_STORE, BodyLimits, json_response, read_body
from service.live.bundle_moves import reload, roll_back
from service.live.live_bundle import LiveBundle
from service.openapi import BEARER, answers, reads
from service.schemas.bundle import ReloadAnswer, RollbackAnswer, RollbackRequest
from service.side_work import SideWork

SECURED: dict[str, Any] = {"security": [{BEARER: []}]}


def bundle_admin_routes(
    live_bundle: LiveBundle, shelf: Shelf, token: str, side: SideWork, limits: BodyLimits
) -> APIRouter:
    """Return the routes; opening and moving happen beside the event loop."""
    router = APIRouter(tags=["admin"], prefix="/admin")

    @router.post(
        "/reload",
        summary="Look at what is current now, and answer once it is live or refused",
        openapi_extra=SECURED,
        responses=answers("What is live", ReloadAnswer, 401, 409, 503),
        response_class=Response,
    )
    async def reload_now(request: Request) -> Response:
        check_token(request, token)
        told = await side.run(partial(reload, live_bundle, str(shelf.folder)))
        return json_response(told, headers=NO_STORE)

    @router.post(
        "/rollback",
        summary="Make the bundle before the current one current, or the one named",
        openapi_extra=SECURED | reads(RollbackRequest),
        responses=answers("What is live", RollbackAnswer, 401, 404, 409, 408, 413, 422, 503),
        response_class=Response,
    )
    async def roll_back_now(request: Request) -> Response:
        check_token(request, token)
        asked = await read_body(request, RollbackRequest, limits)
        told = await side.run(partial(roll_back, live_bundle, shelf, asked.version))
        return json_response(told, headers=NO_STORE)

    return router
