"""The calls of the operator, behind a bearer token; where none is set, there are none."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from index.cluster_map_registry import ClusterMapRegistry, ClusterPointer
from index.errors import StoreUnreachableError
from service.bearer import check_token
from service.bodies import NO_STORE, BodyLimits, json_response, read_body
from service.openapi import BEARER, answers, reads
from service.schemas.clusters import PointerAnswer, PointerRequest
from service.side_work import SideWork

STORE_S = 5.0  # the store's own limits are shorter; this one holds whatever it does


def admin_routes(
    store: ClusterMapRegistry, token: str, side: SideWork, limits: BodyLimits
) -> APIRouter:
    """Return the routes; the store is asked beside the event loop, within a time."""
    router = APIRouter(tags=["admin"], prefix="/admin")
    described: dict[str, Any] = reads(PointerRequest) | {"security": [{BEARER: []}]}

    @router.put(
        "/clusters/current",
        summary="Pin, unpin or roll back the current cluster map",
        openapi_extra=described,
        responses=answers("What is current now", PointerAnswer, 401, 404, 408, 413, 422, 503),
        response_class=Response,
    )
    async def point(request: Request) -> Response:
        check_token(request, token)
        asked = await read_body(request, PointerRequest, limits)
        pointer = await within_time(side, partial(move, store, asked), store.place)
        told: PointerAnswer = {
            "sequence": pointer.sequence,
            "version": pointer.version,
            "previous": pointer.previous,
            "is_pinned": pointer.pinned,
        }
        return json_response(told, headers=NO_STORE)

    return router


def move(store: ClusterMapRegistry, asked: PointerRequest) -> ClusterPointer:
    """Do what was asked for."""
    if asked.action == "pin":
        return store.pin(asked.version)
    if asked.action == "unpin":
        return store.unpin()
    return store.roll_back(asked.version)


async def within_time(
    side: SideWork, work: Callable[[], ClusterPointer], place: str
) -> ClusterPointer:
    """Wait for the store, but not for ever.

    Raises StoreUnreachableError.
    """
    try:
        async with asyncio.timeout(STORE_S):
            return await side.run(work)
    except TimeoutError as error:
        raise StoreUnreachableError(
            f"{place}: did not answer within {STORE_S:g} s, but may still do so; see what "
            "GET /clusters tells, then try again"
        ) from error
