"""Compares a response with the recorded one: equal, but for rounding and for what may differ.

Numbers may differ by 1e-5, relative and absolute. Candidates may change places only where their
scores are that close. Versions, digests, times and request ids are replaced before comparing.
"""

import math
import re

CLOSE = 1e-5
DIGITS = 7  # of a recorded number
VOLATILE = {"request_id", "age_seconds", "sequence", "at", "created_at"}
PROMISED = (  # of the manifest; the rest tells of files, of libraries and of the index
    *(
        "name",
        "items",
        "embedding_dim",
        "history_length",
        "modalities",
        "has_histories",
        "attributes",
    ),
    *("filters", "dataset", "added", "metrics", "run"),
)
PATTERNS = (
    (re.compile(r"\d{8}T\d{6}Z-[0-9a-f]+"), "<version>"),
    (re.compile(r"\b[0-9a-f]{16,128}\b"), "<digest>"),
    (re.compile(r"/[^\s'\"]*/(full|bare|none)\b"), r"<bundles>/\1"),
)


def normalised(node, key=""):
    """Replace what differs from run to run, and round numbers."""
    if key in VOLATILE and node is not None:
        return f"<{key}>"
    if isinstance(node, dict):
        if key == "manifest":
            node = {name: node[name] for name in PROMISED if name in node}
        return {name: normalised(value, name) for name, value in node.items()}
    if isinstance(node, list):
        return [normalised(one) for one in node]
    if isinstance(node, float):
        return round(node, DIGITS)
    return _without_versions(node) if isinstance(node, str) else node


def _without_versions(text):
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def differences(found, expected, place="response"):
    """Describe each difference, with the way to it; none where both are equal."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return _between_objects(found, expected, place)
    if isinstance(expected, list) and isinstance(found, list):
        return _between_lists(found, expected, place)
    if isinstance(expected, float) and _is_number(found):
        return [] if is_close(found, expected) else [f"{place}: {found}, expected {expected}"]
    if type(found) is not type(expected) or found != expected:
        return [f"{place}: {found!r:.200}, expected {expected!r:.200}"]
    return []


def _between_objects(found, expected, place):
    if found.keys() != expected.keys():
        return [f"{place}: keys {sorted(found)}, expected {sorted(expected)}"]
    return [
        line
        for name, value in expected.items()
        for line in differences(found[name], value, f"{place}.{name}")
    ]


def _between_lists(found, expected, place):
    if len(found) != len(expected):
        return [f"{place}: {len(found)} members, expected {len(expected)}"]
    if place.endswith(".candidates"):
        found = with_close_ones_in_order(found, expected)
    return [
        line
        for number, pair in enumerate(zip(found, expected, strict=True))
        for line in differences(*pair, f"{place}[{number}]")
    ]


def with_close_ones_in_order(found, expected):
    """Put candidates whose scores are as good as equal into the recorded order."""
    ordered = list(found)
    for place, candidate in enumerate(expected):
        if ordered[place]["item_id"] == candidate["item_id"] or candidate["score"] is None:
            continue
        for other in range(place + 1, len(ordered)):
            if not _are_close(ordered[other], ordered[place]):
                break
            if ordered[other]["item_id"] == candidate["item_id"]:
                ordered[place], ordered[other] = ordered[other], ordered[place]
                break
    return ordered


def _are_close(one, other):
    scores = one.get("score"), other.get("score")
    return all(_is_number(score) for score in scores) and is_close(*scores)


def is_close(one, other):
    """Equal as docs/architecture.md defines it for scores and vectors."""
    return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)
