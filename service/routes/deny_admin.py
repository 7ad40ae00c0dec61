"""The operator's call about denied items; answered once the list is in force here."""

import time
from functools import partial

from fastapi import APIRouter

from index.denylist import Denylist, DenylistStore, DenylistWatcher
from index.errors import StoreUnreachableError
from service.executor import BoundedExecutor
from service.openapi import problems
from service.routing import admin_router
from service.schemas.deny import DenyChangeAnswer, DenyRequest
from service.state.bundle_watcher import LiveBundle

IN_FORCE_S = 30.0  # a store answers within a second


def deny_admin_routes(
    live_bundle: LiveBundle,
    deny: DenylistWatcher,
    store: DenylistStore,
    token: str,
    executor: BoundedExecutor,
) -> APIRouter:
    """Return the route; the store is written beside the event loop.

    store  the watcher's, with a client of its own: the other may be in the middle of a poll
    """
    router = admin_router(token)

    @router.put(
        "/deny",
        summary="Replace or change the list of items that are never returned",
        response_description="The list in force",
        responses=problems(401, 408, 409, 413, 422, 503),
    )
    async def change_now(asked: DenyRequest) -> DenyChangeAnswer:
        return await executor.run(partial(change, live_bundle, deny, store, asked))

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
