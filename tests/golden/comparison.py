"""Comparison of a response with the recorded one, up to rounding and volatile fields.

Numbers may differ by 1e-5, relative and absolute. Candidates may be reordered only where their
scores are that close. Versions, digests, times and request ids are replaced before comparing.
"""

import math
import re

CLOSE = 1e-5
DIGITS = 7  # decimals of a recorded number
VOLATILE = {"request_id", "age_seconds", "sequence", "at", "created_at"}
MANIFEST_KEYS = (  # compared; the others describe files, libraries and the index
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
    """Replace fields that vary between runs, and round numbers."""
    if key in VOLATILE and node is not None:
        return f"<{key}>"
    if isinstance(node, dict):
        if key == "manifest":
            node = {name: node[name] for name in MANIFEST_KEYS if name in node}
        return {name: normalised(value, name) for name, value in node.items()}
    if isinstance(node, list):
        return [normalised(member) for member in node]
    if isinstance(node, float):
        return round(node, DIGITS)
    return _without_versions(node) if isinstance(node, str) else node


def _without_versions(text):
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def differences(actual, expected, path="response"):
    """List the differences, each with its path; empty where both are equal."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return _between_objects(actual, expected, path)
    if isinstance(expected, list) and isinstance(actual, list):
        return _between_lists(actual, expected, path)
    if isinstance(expected, float) and _is_number(actual):
        return [] if is_close(actual, expected) else [f"{path}: {actual}, expected {expected}"]
    if type(actual) is not type(expected) or actual != expected:
        return [f"{path}: {actual!r:.200}, expected {expected!r:.200}"]
    return []


def _between_objects(actual, expected, path):
    if actual.keys() != expected.keys():
        return [f"{path}: keys {sorted(actual)}, expected {sorted(expected)}"]
    return [
        line
        for name, value in expected.items()
        for line in differences(actual[name], value, f"{path}.{name}")
    ]


def _between_lists(actual, expected, path):
    if len(actual) != len(expected):
        return [f"{path}: {len(actual)} elements, expected {len(expected)}"]
    if path.endswith(".candidates"):
        actual = with_ties_in_order(actual, expected)
    return [
        line
        for number, pair in enumerate(zip(actual, expected, strict=True))
        for line in differences(*pair, f"{path}[{number}]")
    ]


def with_ties_in_order(actual, expected):
    """Sort candidates with tied scores into the recorded order."""
    ordered = list(actual)
    for rank, candidate in enumerate(expected):
        if ordered[rank]["item_id"] == candidate["item_id"] or candidate["score"] is None:
            continue
        for other in range(rank + 1, len(ordered)):
            if not _are_tied(ordered[other], ordered[rank]):
                break
            if ordered[other]["item_id"] == candidate["item_id"]:
                ordered[rank], ordered[other] = ordered[other], ordered[rank]
                break
    return ordered


def _are_tied(left, right):
    scores = left.get("score"), right.get("score")
    return all(_is_number(score) for score in scores) and is_close(*scores)


def is_close(left, right):
    """Compare with the tolerance that docs/architecture.md defines for scores and vectors."""
    return math.isclose(left, right, rel_tol=CLOSE, abs_tol=CLOSE)


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)
