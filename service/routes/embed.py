"""Embedding route: vectors of users, encoded as in `/retrieve`, and of items."""

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
from service.routing import JsonResponse, JsonRoute, problem_responses
from service.schemas.embed import EmbedRequest, EmbedResponse, Features, UserQuery
from service.schemas.shared import FieldError

MAX_PART_SIZE, MAX_PART_TEXTS = 16, 2_000  # users or items processed in one call; their ids


def embed_routes(live_bundle: BundleWatcher, queue: RequestQueue) -> APIRouter:
    """Return the embedding route."""
    router = APIRouter(tags=["vectors"], route_class=JsonRoute)

    @router.post(
        "/embed",
        summary="Vectors of users, or of items from their raw features",
        response_model=EmbedResponse,
        response_description="One vector per user or item",
        responses=problem_responses(409, 408, 413, 422, 503),
    )
    async def embed(request: Request, body: EmbedRequest) -> Response:
        """Return the vectors that the service itself searches with, for an index of your own.

        Send either `users`, whose query vectors are encoded from `history` or `user_id` as in
        `/retrieve`, or `items` as numbers by modality, in the bundle or not; `modalities` in
        `GET /bundle` lists names and widths. The inner product of a query vector and an item
        vector is the score in `/retrieve`. Vectors of different bundles are not comparable:
        compare `bundle` in the responses.
        """
        live = live_bundle.get()
        embedded = await queue.run(request, build_work(live, body))
        return JsonResponse(build_embed_response(live.bundle.version, embedded))

    return router


class Embedded(NamedTuple):
    """A vector [dim], or why there is none, and the unknown ids of the history."""

    vector: Floats | None
    fallback: Fallback | Literal["no_features"] | None = None
    unknown: Sequence[str] = ()


def build_work(live: ServedBundle, body: EmbedRequest) -> Work[Any, Embedded]:
    """Build the work of a request, in parts of a few milliseconds.

    Raises:
        NoItemEncoderError: the bundle encodes no items.
        InvalidBodyError: features do not match the bundle's modalities.
    """
    if body.users:
        costs = [len(user.history or ()) for user in body.users]
        parts = split(body.users, costs, MAX_PART_SIZE, MAX_PART_TEXTS)
        return Work(partial(embed_users, live), parts)
    encoder = get_item_encoder(live)
    errors = _validate_features(body.items, encoder.widths)
    if errors:
        raise InvalidBodyError(errors)
    costs = [0] * len(body.items)
    return Work(partial(embed_items, encoder), split(body.items, costs, MAX_PART_SIZE))


def get_item_encoder(live: ServedBundle) -> ItemEncoder:
    """Return the item encoder; raises NoItemEncoderError if the bundle has none."""
    encoder = live.bundle.item_encoder
    if encoder is None:
        raise NoItemEncoderError(
            f"bundle {live.bundle.version}: no item encoder, because its catalogue had no item "
            "features; train with item features"
        )
    return encoder


def embed_users(live: ServedBundle, users: Sequence[UserQuery]) -> list[Embedded]:
    """Encode the query of each user as `/retrieve` does."""
    queries = [Query(1, user_id=user.user_id, history=user.history) for user in users]
    results = live.retriever.encode(queries)
    return [Embedded(result.vector, result.fallback, result.unknown) for result in results]


def embed_items(encoder: ItemEncoder, items: Sequence[Features]) -> list[Embedded]:
    """Encode each item from its features alone."""
    vectors = encoder.encode(_stack_features(items, encoder), len(items))
    return [
        Embedded(vector)
        if any(values and any(values) for values in features.values())
        else NO_FEATURES
        for features, vector in zip(items, vectors, strict=True)
    ]


def build_embed_response(version: str, embedded: Sequence[Embedded]) -> EmbedResponse:
    """Build the response; optional fields appear only if any of their values is set."""
    vectors: list[Any] = [each.vector for each in embedded]  # arrays are encoded as lists
    response: EmbedResponse = {"bundle": version, "vectors": vectors}
    if any(each.fallback for each in embedded):
        response["fallbacks"] = [each.fallback for each in embedded]
    if any(each.unknown for each in embedded):
        response["unknown_items"] = [list(each.unknown) for each in embedded]
    return response


NO_FEATURES = Embedded(None, "no_features")


def _validate_features(items: Sequence[Features], widths: dict[str, int]) -> list[FieldError]:
    """Compare names and widths with the encoder's modalities."""
    known = ", ".join(f"{name} ({width} numbers)" for name, width in widths.items())
    errors: list[FieldError] = []
    for row, features in enumerate(items):
        for name, values in features.items():
            location = f"items.{row}.{name}"
            if name not in widths:
                expected = f"a modality of the bundle: {known}"
                errors.append({"location": location, "received": name, "expected": expected})
            elif values is not None and len(values) != widths[name]:
                received = f"{len(values)} numbers"
                expected = f"{widths[name]} numbers, or null"
                errors.append({"location": location, "received": received, "expected": expected})
    return errors


def _stack_features(items: Sequence[Features], encoder: ItemEncoder) -> dict[str, Floats]:
    """Stack features into one array per modality; a row of NaN is missing."""
    stacked = {
        name: np.full((len(items), width), np.nan, dtype=np.float32)
        for name, width in encoder.widths.items()
    }
    for row, features in enumerate(items):
        for name, values in features.items():
            if values is not None:
                stacked[name][row] = values
    return stacked
