"""JSON encoding of results, vectorised over the candidates of many results.

Python objects for each candidate would cost more than the search. Instead a byte matrix with one
line per candidate is filled column by column.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from index.arrays import Floats
from index.bundle.reader import Bundle
from index.ids import IdTable, PaddedIds
from index.search.query import SearchResult
from service.cluster_watcher import JoinedClusterMap
from service.schemas.retrieval import Include

Bytes = NDArray[np.uint8]

BEFORE_ID, BEFORE_SCORE, AFTER = b'{"item_id":"', b'","score":', b"},"


def encode_results(
    bundle: Bundle,
    joined: JoinedClusterMap | None,
    results: Sequence[SearchResult],
    includes: Sequence[Include],
) -> list[bytes]:
    """Encode each result as a `RetrieveResponse`; incomplete ones become empty bytes."""
    plain = [
        position
        for position, (result, include) in enumerate(zip(results, includes, strict=True))
        if result.is_complete and result.scores is not None and not include
    ]
    encoded = encode_candidates(bundle.items, [results[position] for position in plain])
    encoded_by_position = dict(zip(plain, encoded or (), strict=False))
    return [
        encode_json(
            build_response(bundle, joined, result, include, encoded_by_position.get(position))
        )
        if result.is_complete
        else b""
        for position, (result, include) in enumerate(zip(results, includes, strict=True))
    ]


def build_response(
    bundle: Bundle,
    joined: JoinedClusterMap | None,
    result: SearchResult,
    include: Include,
    encoded: bytes | None,
) -> dict[str, Any]:
    """Build a `RetrieveResponse`; `encoded` holds its candidates as JSON, if available."""
    candidates: Any = orjson.Fragment(encoded) if encoded else build_candidates(result)
    response: dict[str, Any] = {"bundle": bundle.version, "candidates": candidates}
    if result.fallback:
        response["fallback"] = result.fallback
    if result.unknown:
        response["unknown_items"] = result.unknown
    if result.unknown_values:
        response["unknown_values"] = result.unknown_values
    if "clusters" in include:
        add_clusters(response, joined)
    if "attributes" in include:
        attributes = bundle.attributes
        texts = [b"{}"] * len(candidates) if attributes is None else attributes.get(result.rows)
        for candidate, text in zip(candidates, texts, strict=True):
            candidate["attributes"] = orjson.Fragment(text)
    return response


def add_clusters(response: dict[str, Any], joined: JoinedClusterMap | None) -> None:
    """Add the map's version and each candidate's codes, by id: the map may be of another bundle."""
    ids = [candidate["item_id"] for candidate in response["candidates"]]
    codes = joined.get_codes(ids) if joined else [None] * len(ids)
    for candidate, pair in zip(response["candidates"], codes, strict=True):
        candidate["cluster"] = pair
    if joined:
        response["clusters"] = joined.version


def build_candidates(result: SearchResult) -> list[dict[str, Any]]:
    """Build candidates as dictionaries, with the scores that `encode_candidates` writes."""
    scores = [None] * len(result.rows) if result.scores is None else list(result.scores)
    return [
        {"item_id": item_id, "score": score}
        for item_id, score in zip(result.item_ids, scores, strict=True)
    ]


def encode_candidates(items: IdTable, results: Sequence[SearchResult]) -> list[bytes] | None:
    """Encode the candidates of each result as a JSON array of `item_id` and `score`.

    Args:
        results: with scores.

    Returns:
        None if an id needs JSON escapes or is much longer than the others.
    """
    if not results:
        return []
    ids = items.pad(np.concatenate([result.rows for result in results]))
    if ids is None or is_escaped(ids.window).any():
        return None
    scores = encode_scores(
        np.concatenate([result.scores for result in results if result.scores is not None])
    )
    lines = build_lines(ids.window, scores)
    widths = ids.lengths + (lines.shape[1] - ids.window.shape[1])
    offsets = accumulate((len(result.rows) for result in results), initial=0)
    starts = np.concatenate([[0], np.cumsum(widths)])
    bounds = starts[list(offsets)].tolist()
    text = join_lines(lines, ids)
    return [b"[%b]" % text[begin:end].removesuffix(b",") for begin, end in pairwise(bounds)]


def is_escaped(text: Bytes) -> NDArray[np.bool_]:
    """Return which bytes JSON escapes: quotes, backslashes and control characters."""
    needs_escape: NDArray[np.bool_] = (text < ord(" ")) | (text == ord('"')) | (text == ord("\\"))
    return needs_escape


def encode_scores(scores: Floats) -> Bytes:
    """Encode scores as JSON numbers, pad_histories with spaces; [candidates, width]."""
    text = b"," + encode_json(scores)[1:-1] + b","
    commas = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord(","))
    lengths = np.diff(commas)[: len(scores)] - 1
    width = int(lengths.max(initial=1))
    windows = np.ndarray((len(text), width), np.uint8, text + b" " * width, strides=(1, 1))
    column = windows[commas[: len(scores)] + 1]
    column[np.arange(width) >= lengths[:, np.newaxis]] = ord(" ")
    return column


def build_lines(ids: Bytes, scores: Bytes) -> Bytes:
    """Build a line for each candidate, pad_histories to equal width; [candidates, width]."""
    first, width = len(BEFORE_ID), ids.shape[1]
    pattern = BEFORE_ID + bytes(width) + BEFORE_SCORE + bytes(scores.shape[1]) + AFTER
    lines = np.empty((len(ids), len(pattern)), dtype=np.uint8)
    lines[:] = np.frombuffer(pattern, dtype=np.uint8)
    lines[:, first : first + width] = ids
    lines[:, len(pattern) - len(AFTER) - scores.shape[1] : len(pattern) - len(AFTER)] = scores
    return lines


def join_lines(lines: Bytes, ids: PaddedIds) -> bytes:
    """Concatenate the lines without the padding of shorter ids."""
    if ids.has_equal_lengths:
        return lines.tobytes()
    is_used = np.ones(lines.shape, dtype=np.bool_)
    is_used[:, len(BEFORE_ID) : len(BEFORE_ID) + ids.window.shape[1]] = ids.byte_mask()
    return lines[is_used].tobytes()


def encode_json_chunked(rows: Sequence[object] | NDArray[Any], size: int) -> orjson.Fragment:
    """Encode a long list in chunks of `size` rows, so that other threads run in between."""
    chunks = [encode_json(rows[begin : begin + size]) for begin in range(0, len(rows), size)]
    return orjson.Fragment(b"[" + b",".join(chunk[1:-1] for chunk in chunks) + b"]")


def encode_json(value: object) -> bytes:
    """Encode a value as JSON; accepts numpy arrays and `orjson.Fragment`."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
