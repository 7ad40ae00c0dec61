"""Vectors on request: of users, as `/retrieve` would ask with them, and of items."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from index.encoders import ItemEncoder
from index.errors import RequestError
from index.item_index import Floats
from index.retriever import Question
from service.bodies import InvalidBodyError
from service.embed_schemas import EmbedAnswer, Features, UserToEmbed
from service.live_bundle import Live
from service.schemas import Fault


class NoItemEncoderError(RequestError):
    """The bundle cannot make a vector of an item's content."""


def embed_users(live: Live, users: Sequence[UserToEmbed]) -> EmbedAnswer:
    """Tell the query of each user, all from one call of the encoder."""
    questions = [Question(1, user_id=one.user_id, history=one.history) for one in users]
    prepared = live.retriever.prepare(questions)
    vectors: list[Any] = [one.query for one in prepared]  # arrays are written as lists
    told: EmbedAnswer = {"bundle": live.bundle.version, "vectors": vectors}
    if any(one.fallback for one in prepared):
        told["fallbacks"] = [one.fallback for one in prepared]
    if any(one.unknown for one in prepared):
        told["unknown_items"] = [one.unknown for one in prepared]
    return told


def embed_items(live: Live, items: Sequence[Features]) -> EmbedAnswer:
    """Tell the vector of each item, made of its content alone.

    Raises NoItemEncoderError, and InvalidBodyError for features that are not the bundle's.
    """
    encoder = live.bundle.item_encoder
    if encoder is None:
        raise NoItemEncoderError(
            f"bundle {live.bundle.version}: trained on a catalogue without content, it holds "
            "no encoder of items; train on items with features"
        )
    faults = _faults_of(items, encoder.widths)
    if faults:
        raise InvalidBodyError(faults)
    is_usable = [any(values and any(values) for values in one.values()) for one in items]
    encoded = encoder.encode(_stacked(items, encoder), len(items))
    vectors: list[Any] = [
        row if usable else None for row, usable in zip(encoded, is_usable, strict=True)
    ]
    told: EmbedAnswer = {"bundle": live.bundle.version, "vectors": vectors}
    if not all(is_usable):
        told["fallbacks"] = [None if usable else "no_features" for usable in is_usable]
    return told


def _faults_of(items: Sequence[Features], widths: dict[str, int]) -> list[Fault]:
    """Compare names and widths with what the encoder reads."""
    known = ", ".join(f"{name} ({width} numbers)" for name, width in widths.items())
    faults: list[Fault] = []
    for place, one in enumerate(items):
        for name, values in one.items():
            where = f"items.{place}.{name}"
            if name not in widths:
                expected = f"a modality of the bundle: {known}"
                faults.append({"place": where, "found": name, "expected": expected})
            elif values is not None and len(values) != widths[name]:
                found = f"{len(values)} numbers"
                expected = f"{widths[name]} numbers, or null"
                faults.append({"place": where, "found": found, "expected": expected})
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
