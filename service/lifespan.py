"""What begins before the first request and ends after the last one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

from service.admission import Admission
from service.hangup import on_hangup
from service.side_work import SideWork
from service.state.bundle_watcher import LiveBundle
from service.state.cluster_watcher import LiveClusters

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def lifespan_of(
    live_bundle: LiveBundle,
    live_clusters: LiveClusters,
    admission: Admission,
    *sides: SideWork,
) -> Lifespan:
    """Return what begins and ends the work in the background."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live_bundle.start()
        consumer = asyncio.create_task(admission.consume(), name="consumer")
        try:
            with on_hangup(live_bundle.request_poll):
                yield
        finally:
            consumer.cancel()
            await asyncio.to_thread(live_bundle.stop)
            await asyncio.to_thread(live_clusters.stop)
            for side in sides:
                side.close()

    return lifespan
