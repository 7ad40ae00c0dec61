"""Results as JSON. Candidates of many results are written together, as a table of bytes.

A text, a number and a dictionary for each candidate would cost more than finding it. Here a
table is filled column by column; a line is a candidate.
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
    """Write each result as a `RetrieveResponse`; nothing for incomplete ones."""
    plain = [
        place
        for place, (one, include) in enumerate(zip(results, includes, strict=True))
        if one.is_complete and one.scores is not None and not include
    ]
    together = encode_candidates(bundle.items, [results[place] for place in plain])
    written = dict(zip(plain, together or (), strict=False))
    return [
        json_bytes(response_of(bundle, joined, one, include, written.get(place)))
        if one.is_complete
        else b""
        for place, (one, include) in enumerate(zip(results, includes, strict=True))
    ]


def response_of(
    bundle: Bundle,
    joined: JoinedClusterMap | None,
    result: SearchResult,
    include: Include,
    written: bytes | None,
) -> dict[str, Any]:
    """Return a `RetrieveResponse`; its candidates as JSON, where they are `written` already."""
    candidates: Any = orjson.Fragment(written) if written else candidates_of(result)
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
        known = bundle.attributes
        texts = [b"{}"] * len(candidates) if known is None else known.get(result.rows)
        for candidate, text in zip(candidates, texts, strict=True):
            candidate["attributes"] = orjson.Fragment(text)
    return response


def add_clusters(response: dict[str, Any], joined: JoinedClusterMap | None) -> None:
    """Add each candidate's codes and the map's version; by id: it may be of another bundle."""
    ids = [one["item_id"] for one in response["candidates"]]
    codes = joined.get_codes(ids) if joined else [None] * len(ids)
    for candidate, own in zip(response["candidates"], codes, strict=True):
        candidate["cluster"] = own
    if joined:
        response["clusters"] = joined.version


def candidates_of(result: SearchResult) -> list[dict[str, Any]]:
    """Return candidates one by one, with the scores that `encode_candidates` writes."""
    scores = [None] * len(result.rows) if result.scores is None else list(result.scores)
    return [
        {"item_id": item_id, "score": score}
        for item_id, score in zip(result.item_ids, scores, strict=True)
    ]


def encode_candidates(items: IdTable, results: Sequence[SearchResult]) -> list[bytes] | None:
    """Write the candidates of each result as a JSON array of `item_id` and `score`.

    Args:
        results: with scores.

    Returns:
        None where ids need more care: JSON escapes one, or one is much longer than the others.
    """
    if not results:
        return []
    ids = items.pad(np.concatenate([one.rows for one in results]))
    if ids is None or is_escaped(ids.window).any():
        return None
    scores = score_column(np.concatenate([one.scores for one in results if one.scores is not None]))
    lines = lines_of(ids.window, scores)
    widths = ids.lengths + (lines.shape[1] - ids.window.shape[1])
    places = accumulate((len(one.rows) for one in results), initial=0)
    starts = np.concatenate([[0], np.cumsum(widths)])
    bounds = starts[list(places)].tolist()
    written = cut(lines, ids)
    return [b"[%b]" % written[begin:end].removesuffix(b",") for begin, end in pairwise(bounds)]


def is_escaped(text: Bytes) -> NDArray[np.bool_]:
    """Tell which bytes JSON escapes: quotes, backslashes, and what is below a space."""
    is_odd: NDArray[np.bool_] = (text < ord(" ")) | (text == ord('"')) | (text == ord("\\"))
    return is_odd


def score_column(scores: Floats) -> Bytes:
    """Write scores as JSON numbers, filled up with spaces; [candidates, width]."""
    text = b"," + json_bytes(scores)[1:-1] + b","
    commas = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord(","))
    lengths = np.diff(commas)[: len(scores)] - 1
    width = int(lengths.max(initial=1))
    windows = np.ndarray((len(text), width), np.uint8, text + b" " * width, strides=(1, 1))
    column = windows[commas[: len(scores)] + 1]
    column[np.arange(width) >= lengths[:, np.newaxis]] = ord(" ")
    return column


def lines_of(ids: Bytes, scores: Bytes) -> Bytes:
    """Return a line for each candidate, as wide as the widest; [candidates, width]."""
    first, width = len(BEFORE_ID), ids.shape[1]
    pattern = BEFORE_ID + bytes(width) + BEFORE_SCORE + bytes(scores.shape[1]) + AFTER
    lines = np.empty((len(ids), len(pattern)), dtype=np.uint8)
    lines[:] = np.frombuffer(pattern, dtype=np.uint8)
    lines[:, first : first + width] = ids
    lines[:, len(pattern) - len(AFTER) - scores.shape[1] : len(pattern) - len(AFTER)] = scores
    return lines


def cut(lines: Bytes, ids: PaddedIds) -> bytes:
    """Return the lines one after the other, without what stands behind shorter ids."""
    if ids.has_equal_lengths:
        return lines.tobytes()
    is_used = np.ones(lines.shape, dtype=np.bool_)
    is_used[:, len(BEFORE_ID) : len(BEFORE_ID) + ids.window.shape[1]] = ids.byte_mask()
    return lines[is_used].tobytes()


def json_in_parts(rows: Sequence[object] | NDArray[Any], count: int) -> orjson.Fragment:
    """Write a long list, `count` of its members at a time: threads take turns in between."""
    parts = [json_bytes(rows[begin : begin + count]) for begin in range(0, len(rows), count)]
    return orjson.Fragment(b"[" + b",".join(part[1:-1] for part in parts) + b"]")


def json_bytes(value: object) -> bytes:
    """Write a value as JSON; numpy arrays and `orjson.Fragment` are written too."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
