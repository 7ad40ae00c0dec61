"""Where a schema cannot say what the service takes; loaded by schemathesis itself."""

import schemathesis

ATTRIBUTES = ("parity", "hundred", "odd", "tags", "mood")  # of the hand-made bundle


def with_whole_integers(value):
    """Write 7.0 as 7: both are integers to JSON Schema, but only one is to the service."""
    if isinstance(value, dict):
        return {name: with_whole_integers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [with_whole_integers(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def with_known_attributes(value):
    """Name attributes that the bundle has: any other one is a fault, which no schema tells."""
    if isinstance(value, list):
        return [with_known_attributes(one) for one in value]
    if not isinstance(value, dict):
        return value
    told = {name: with_known_attributes(one) for name, one in value.items()}
    if isinstance(told.get("filter"), dict):
        told["filter"] = dict(zip(ATTRIBUTES, told["filter"].values(), strict=False))
    return told


@schemathesis.hook
def map_body(context, body):
    return with_known_attributes(with_whole_integers(body))
