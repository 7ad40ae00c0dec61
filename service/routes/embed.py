"""The call for vectors: of users, as `/retrieve` encodes them, and of items."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from index.arrays import Floats
from index.encoders import ItemEncoder
from index.search.query import Fallback, Query
from service.bundle_watcher import BundleWatcher, ServedBundle
from service.errors import InvalidBodyError, NoItemEncoderError
from service.request_queue import RequestQueue, Work, split
from service.routing import JsonResponse, JsonRoute, problems
from service.schemas.embed import EmbedRequest, EmbedResponse, Features, UserToEmbed
from service.schemas.shared import Fault

PART, PART_TEXTS = 16, 2_000  # users or items processed in one call, and their ids


def embed_routes(live_bundle: BundleWatcher, queue: RequestQueue) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["vectors"], route_class=JsonRoute)

    @router.post(
        "/embed",
        summary="Vectors of users, or of items from their raw features",
        response_model=EmbedResponse,
        response_description="A vector for each",
        responses=problems(409, 408, 413, 422, 503),
    )
    async def embed(request: Request, body: EmbedRequest) -> Response:
        live = live_bundle.get()
        embedded = await queue.run(request, work_of(live, body))
        return JsonResponse(answer_of(live.bundle.version, embedded))

    return router


class Embedded(NamedTuple):
    """A vector [dim], or why there is none; and the ids of a history that are unknown."""

    vector: Floats | None
    fallback: Fallback | Literal["no_features"] | None = None
    unknown: Sequence[str] = ()


def work_of(live: ServedBundle, body: EmbedRequest) -> Work[Any, Embedded]:
    """Return the work of a request, in parts that hold up nobody.

    Raises NoItemEncoderError, and InvalidBodyError for features that are not the bundle's.
    """
    if body.users:
        costs = [len(one.history or ()) for one in body.users]
        return Work(partial(embed_users, live), split(body.users, costs, PART, PART_TEXTS))
    encoder = item_encoder_of(live)
    faults = _faults_of(body.items, encoder.widths)
    if faults:
        raise InvalidBodyError(faults)
    costs = [0] * len(body.items)
    return Work(partial(embed_items, encoder), split(body.items, costs, PART))


def item_encoder_of(live: ServedBundle) -> ItemEncoder:
    """Return the encoder of items; raises NoItemEncoderError where the bundle has none."""
    encoder = live.bundle.item_encoder
    if encoder is None:
        raise NoItemEncoderError(
            f"bundle {live.bundle.version}: trained on a catalogue without content, it holds "
            "no encoder of items; train on items with features"
        )
    return encoder


def embed_users(live: ServedBundle, users: Sequence[UserToEmbed]) -> list[Embedded]:
    """Encode the query of each user as `/retrieve` does."""
    queries = [Query(1, user_id=one.user_id, history=one.history) for one in users]
    results = live.retriever.encode(queries)
    return [Embedded(one.vector, one.fallback, one.unknown) for one in results]


def embed_items(encoder: ItemEncoder, items: Sequence[Features]) -> list[Embedded]:
    """Make the vector of each item from its content alone."""
    vectors = encoder.encode(_stacked(items, encoder), len(items))
    return [
        Embedded(vector) if any(values and any(values) for values in one.values()) else BLANK
        for one, vector in zip(items, vectors, strict=True)
    ]


def answer_of(version: str, embedded: Sequence[Embedded]) -> EmbedResponse:
    """Put vectors into the caller's words."""
    vectors: list[Any] = [one.vector for one in embedded]  # arrays are written as lists
    told: EmbedResponse = {"bundle": version, "vectors": vectors}
    if any(one.fallback for one in embedded):
        told["fallbacks"] = [one.fallback for one in embedded]
    if any(one.unknown for one in embedded):
        told["unknown_items"] = [list(one.unknown) for one in embedded]
    return told


BLANK = Embedded(None, "no_features")


def _faults_of(items: Sequence[Features], widths: dict[str, int]) -> list[Fault]:
    """Compare names and widths with what the encoder reads."""
    known = ", ".join(f"{name} ({width} numbers)" for name, width in widths.items())
    faults: list[Fault] = []
    for place, one in enumerate(items):
        for name, values in one.items():
            where = f"items.{place}.{name}"
            if name not in widths:
                expected = f"a modality of the bundle: {known}"
                faults.append({"location": where, "received": name, "expected": expected})
            elif values is not None and len(values) != widths[name]:
                found = f"{len(values)} numbers"
                expected = f"{widths[name]} numbers, or null"
                faults.append({"location": where, "received": found, "expected": expected})
    return faults


def _stacked(items: Sequence[Features], encoder: ItemEncoder) -> dict[str, Floats]:
    """Put features into one array per modality; a row of NaN is missing."""
    stacked = {
        name: np.full((len(items), width), np.nan, dtype=np.float32)
        for name, width in encoder.widths.items()
    }
    for place, one in enumerate(items):
        for name, values in one.items():
            if values is not None:
                stacked[name][place] = values
    return stacked
