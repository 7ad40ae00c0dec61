"""Vectors on request: of users, as `/retrieve` would ask with them, and of items."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from index.arrays import Floats
from index.encoders import ItemEncoder
from index.errors import RequestError
from index.retriever import Fallback, Question
from service.bodies import InvalidBodyError
from service.finding import at_once
from service.schemas.embed import EmbedAnswer, EmbedRequest, Features, UserToEmbed
from service.schemas.shared import Fault
from service.state.bundle_watcher import Live

One = TypeVar("One")


EMBEDDED_AT_ONCE, TEXTS_AT_ONCE = 16, 2_000  # users or items of one turn, and their ids


class NoItemEncoderError(RequestError):
    """The bundle cannot make a vector of an item's content."""


class Embedded(NamedTuple):
    """A vector [dim], or why there is none; and the ids of a history that are unknown."""

    vector: Floats | None
    fallback: Fallback | Literal["no_features"] | None = None
    unknown: Sequence[str] = ()


def works_of(live: Live, asked: EmbedRequest) -> list[Callable[[], list[Embedded]]]:
    """Return what is to be done, in parts that hold up nobody.

    Raises NoItemEncoderError, and InvalidBodyError for features that are not the bundle's.
    """
    if asked.users:
        counts = [len(one.history or ()) for one in asked.users]
        return [partial(embed_users, live, part) for part in _parts(asked.users, counts)]
    encoder = item_encoder_of(live)
    faults = _faults_of(asked.items, encoder.widths)
    if faults:
        raise InvalidBodyError(faults)
    counts = [0] * len(asked.items)
    return [partial(embed_items, encoder, part) for part in _parts(asked.items, counts)]


def item_encoder_of(live: Live) -> ItemEncoder:
    """Return the encoder of items; raises NoItemEncoderError where the bundle has none."""
    encoder = live.bundle.item_encoder
    if encoder is None:
        raise NoItemEncoderError(
            f"bundle {live.bundle.version}: trained on a catalogue without content, it holds "
            "no encoder of items; train on items with features"
        )
    return encoder


def embed_users(live: Live, users: Sequence[UserToEmbed]) -> list[Embedded]:
    """Make the query of each user as `/retrieve` does."""
    questions = [Question(1, user_id=one.user_id, history=one.history) for one in users]
    return [
        Embedded(one.query, one.fallback, one.unknown)
        for one in live.retriever.prepare(questions)
    ]


def embed_items(encoder: ItemEncoder, items: Sequence[Features]) -> list[Embedded]:
    """Make the vector of each item from its content alone."""
    vectors = encoder.encode(_stacked(items, encoder), len(items))
    return [
        Embedded(vector) if any(values and any(values) for values in one.values()) else BLANK
        for one, vector in zip(items, vectors, strict=True)
    ]


def answer_of(version: str, embedded: Sequence[Embedded]) -> EmbedAnswer:
    """Put vectors into the caller's words."""
    vectors: list[Any] = [one.vector for one in embedded]  # arrays are written as lists
    told: EmbedAnswer = {"bundle": version, "vectors": vectors}
    if any(one.fallback for one in embedded):
        told["fallbacks"] = [one.fallback for one in embedded]
    if any(one.unknown for one in embedded):
        told["unknown_items"] = [list(one.unknown) for one in embedded]
    return told


BLANK = Embedded(None, "no_features")


def _parts(asked: Sequence[One], text_counts: Sequence[int]) -> list[Sequence[One]]:
    parts, begin = [], 0
    while begin < len(asked):
        end = begin + at_once(text_counts[begin:], EMBEDDED_AT_ONCE, TEXTS_AT_ONCE)
        parts.append(asked[begin:end])
        begin = end
    return parts


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
