"""Where a schema cannot say what the service takes; loaded by schemathesis itself."""

import schemathesis


def with_whole_integers(value):
    """Write 7.0 as 7: both are integers to JSON Schema, but only one is to the service."""
    if isinstance(value, dict):
        return {name: with_whole_integers(one) for name, one in value.items()}
    if isinstance(value, list):
        return [with_whole_integers(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@schemathesis.hook
def map_body(context, body):
    return with_whole_integers(body)
