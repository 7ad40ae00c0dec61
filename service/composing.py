"""Candidates of many answers as JSON, composed together from their bytes.

A text, a number and a dictionary for each candidate, made one by one, would cost more than
finding it. Here a table of bytes is filled a column at a time: a line is a candidate.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from index.arrays import Floats
from index.ids import IdTable, PaddedIds
from index.retriever import Answer

Bytes = NDArray[np.uint8]

BEFORE_ID, BEFORE_SCORE, AFTER = b'{"item_id":"', b'","score":', b"},"
SCORE = b"-0.000000000"  # the sign may be a space: JSON lets one stand before a number
BILLION, MILLION, THOUSAND = np.uint32(10**9), np.uint32(10**6), np.uint32(1_000)
MOST, LEAST = 2.0, 2.0**-6  # between them nine decimals tell a float32 exactly
DIGITS = np.array([b"%03d" % number for number in range(1_000)])


def compose(items: IdTable, answers: Sequence[Answer]) -> list[bytes] | None:
    """Write the candidates of each answer as a JSON array of `item_id` and `score`.

    answers  with scores

    returns  None where it takes more care: an id that JSON escapes or that is much longer than
             the others, a score that nine decimals do not tell
    """
    scores = np.concatenate([_scores_of(one) for one in answers])
    if not are_told(scores).all():
        return None
    ids = items.aligned(np.concatenate([one.rows for one in answers]))
    if ids is None or are_escaped(ids.window).any():
        return None
    lines = lines_of(ids.window, scores)
    widths = ids.lengths + (lines.shape[1] - ids.window.shape[1])
    places = accumulate((len(one.rows) for one in answers), initial=0)
    starts = np.concatenate([[0], np.cumsum(widths)])
    bounds = starts[list(places)].tolist()
    written = cut(lines, ids)
    return [b"[%b]" % written[begin:end].removesuffix(b",") for begin, end in pairwise(bounds)]


def are_escaped(text: Bytes) -> NDArray[np.bool_]:
    """Tell which bytes JSON escapes: quotes, backslashes, and what is below a space."""
    are: NDArray[np.bool_] = (text < ord(" ")) | (text == ord('"')) | (text == ord("\\"))
    return are


def are_told(scores: Floats) -> NDArray[np.bool_]:
    """Tell of each score whether reading nine decimals of it gives it back."""
    sizes = np.abs(scores)
    is_told: NDArray[np.bool_] = ((sizes >= LEAST) & (sizes < MOST)) | (sizes == 0)
    return is_told


def spoken(scores: Floats) -> list[float]:
    """Return scores that orjson writes as the same numbers that `compose` does."""
    decimals = np.round(scores.astype(np.float64), 9).tolist()
    return [
        decimal if is_told else score
        for decimal, is_told, score in zip(decimals, are_told(scores), scores, strict=True)
    ]


def cut(lines: Bytes, ids: PaddedIds) -> bytes:
    """Return the lines one after the other, without what stands behind shorter ids."""
    if ids.is_even:
        return lines.tobytes()
    is_used = np.ones(lines.shape, dtype=np.bool_)
    is_used[:, len(BEFORE_ID) : len(BEFORE_ID) + ids.window.shape[1]] = ids.is_own()
    return lines[is_used].tobytes()


def lines_of(ids: Bytes, scores: Floats) -> Bytes:
    """Return a line for each candidate, as wide as the widest; [candidates, width]."""
    width = ids.shape[1]
    pattern = BEFORE_ID + bytes(width) + BEFORE_SCORE + SCORE + AFTER
    lines = np.empty((len(ids), len(pattern)), dtype=np.uint8)
    lines[:] = np.frombuffer(pattern, dtype=np.uint8)
    lines[:, len(BEFORE_ID) : len(BEFORE_ID) + width] = ids
    first = len(BEFORE_ID) + width + len(BEFORE_SCORE)
    lines[:, first : first + len(SCORE)][scores >= 0, 0] = ord(" ")
    billionths = np.rint(np.abs(scores).astype(np.float64) * 1e9).astype(np.uint32)
    lines[:, first + 1] += (billionths // BILLION).astype(np.uint8)
    for place, unit in ((3, MILLION), (6, THOUSAND), (9, np.uint32(1))):
        digits = DIGITS.take(billionths // unit % THOUSAND)
        lines[:, first + place : first + place + 3].view(DIGITS.dtype)[:, 0] = digits
    return lines


def _scores_of(answer: Answer) -> Floats:
    assert answer.scores is not None  # popular items are written one by one
    return answer.scores
