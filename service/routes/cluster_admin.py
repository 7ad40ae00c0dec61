"""The calls of the operator, behind a bearer token; where none is set, there are none."""

import asyncio
from collections.abc import Callable
from functools import partial

from fastapi import APIRouter

from index.cluster_map_registry import ClusterMapRegistry, ClusterPointer
from index.errors import StoreUnreachableError
from service.executor import BoundedExecutor
from service.openapi import problems
from service.routing import admin_router
from service.schemas.clusters import PointerAnswer, PointerRequest

STORE_S = 5.0  # the store's own limits are shorter; this one holds whatever it does


def admin_routes(store: ClusterMapRegistry, token: str, executor: BoundedExecutor) -> APIRouter:
    """Return the routes; the store is asked beside the event loop, within a time."""
    router = admin_router(token)

    @router.put(
        "/clusters/current",
        summary="Pin, unpin or roll back the current cluster map",
        response_description="What is current now",
        responses=problems(401, 404, 408, 413, 422, 503),
    )
    async def point(asked: PointerRequest) -> PointerAnswer:
        pointer = await within_time(executor, partial(move, store, asked), store.place)
        return {
            "sequence": pointer.sequence,
            "version": pointer.version,
            "previous": pointer.previous,
            "is_pinned": pointer.pinned,
        }

    return router


def move(store: ClusterMapRegistry, asked: PointerRequest) -> ClusterPointer:
    """Do what was asked for."""
    if asked.action == "pin":
        return store.pin(asked.version)
    if asked.action == "unpin":
        return store.unpin()
    return store.roll_back(asked.version)


async def within_time(
    executor: BoundedExecutor, work: Callable[[], ClusterPointer], place: str
) -> ClusterPointer:
    """Wait for the store, but not for ever.

    Raises StoreUnreachableError.
    """
    try:
        async with asyncio.timeout(STORE_S):
            return await executor.run(work)
    except TimeoutError as error:
        raise StoreUnreachableError(
            f"{place}: did not answer within {STORE_S:g} s, but may still do so; see what "
            "GET /clusters tells, then try again"
        ) from error
