"""The operator's call about denied items; answered once the list is in force here."""

import time
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from index.denylist import Denylist, DenylistStore, DenylistWatcher
from index.errors import StoreUnreachableError
from service.bearer import check_token
from service.bodies import NO_STORE, BodyLimits, json_response, read_body
from service.openapi import BEARER, answers, reads
from service.schemas.deny import DenyChangeAnswer, DenyRequest
from service.side_work import SideWork
from service.state.bundle_watcher import LiveBundle

BODY_BYTES = 1 << 24  # a list is longer than what others may send
IN_FORCE_S = 30.0  # a store answers within a second


def deny_admin_routes(
    live_bundle: LiveBundle,
    deny: DenylistWatcher,
    store: DenylistStore,
    token: str,
    side: SideWork,
    limits: BodyLimits,
) -> APIRouter:
    """Return the route; the store is written beside the event loop.

    store  the watcher's, with a client of its own: the other may be in the middle of a poll
    """
    wide = limits._replace(size_bytes=max(limits.size_bytes, BODY_BYTES))
    router = APIRouter(tags=["admin"], prefix="/admin")
    described: dict[str, Any] = reads(DenyRequest) | {"security": [{BEARER: []}]}

    @router.put(
        "/deny",
        summary="Replace or change the list of items that are never returned",
        openapi_extra=described,
        responses=answers("The list in force", DenyChangeAnswer, 401, 408, 409, 413, 422, 503),
        response_class=Response,
    )
    async def change_now(request: Request) -> Response:
        check_token(request, token)
        asked = await read_body(request, DenyRequest, wide)
        told = await side.run(partial(change, live_bundle, deny, store, asked))
        return json_response(told, headers=NO_STORE)

    return router


def change(
    live_bundle: LiveBundle, deny: DenylistWatcher, store: DenylistStore, asked: DenyRequest
) -> DenyChangeAnswer:
    """Write the list, and wait until it is in force in this process.

    Raises what the store raises; StoreUnreachableError if it is stored, but not in force yet.
    """
    changed = written(deny.value, store, asked)
    deny.poll_now(IN_FORCE_S)
    if not deny.is_in_force(changed.sequence):
        raise StoreUnreachableError(
            f"{store.place}: the list {changed.sequence} is stored, but not in force here "
            f"after {IN_FORCE_S:g} s; GET /readyz tells why and when it is"
        )
    wanted = asked.add if asked.items is None else asked.items
    return {
        "sequence": changed.sequence,
        "count": len(changed.ids),
        "unknown_items": live_bundle.unknown(wanted),
    }


def written(held: Denylist | None, store: DenylistStore, asked: DenyRequest) -> Denylist:
    """Write what was asked for into the store, which may have lost the list that is held."""
    now_s = max(time.time(), (held.sequence + 1) / 1_000 if held else 0)
    if asked.items is not None:
        return store.replace(asked.items, now_s)
    if held:
        store.repopulate(held)
    return store.change(asked.add, asked.remove, now_s)
