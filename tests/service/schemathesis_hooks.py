"""Schemathesis hooks for constraints that a JSON schema cannot express."""

import schemathesis

ATTRIBUTES = ("parity", "hundred", "odd", "tags", "mood")  # of the synthetic bundle


def with_whole_integers(value):
    """Replace 7.0 by 7: both are integers to JSON Schema, but only 7 is to the service."""
    if isinstance(value, dict):
        return {name: with_whole_integers(child) for name, child in value.items()}
    if isinstance(value, list):
        return [with_whole_integers(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def with_known_attributes(value):
    """Replace attribute names by those of the bundle: the service rejects any other."""
    if isinstance(value, list):
        return [with_known_attributes(child) for child in value]
    if not isinstance(value, dict):
        return value
    renamed = {name: with_known_attributes(child) for name, child in value.items()}
    if isinstance(renamed.get("filter"), dict):
        renamed["filter"] = dict(zip(ATTRIBUTES, renamed["filter"].values(), strict=False))
    return renamed


@schemathesis.hook
def map_body(context, body):
    return with_known_attributes(with_whole_integers(body))
