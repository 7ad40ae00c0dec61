"""The configuration explained: TOML with every key, its default, its range, its meaning."""

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainer.config import InBatchConfig, RunConfig, UniformConfig

HEAD = """\
# Every key of a run, with its default. Leave out what you do not change: an empty file is a
# good configuration. An unknown key stops the start.
# Use: python -m trainer run --config FILE --data DIR --bundles DIR
"""


def example() -> str:
    """Return the whole configuration with its defaults as commented TOML."""
    return "\n".join([HEAD, *_table(RunConfig(), "")]).rstrip() + "\n"


def _table(part: BaseModel, path: str) -> Iterator[str]:
    """Yield the lines of one table: its own keys first, its tables after."""
    tables = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            tables[name] = (value, field)
        else:
            yield from _key(name, value, field)
    for name, (value, field) in tables.items():
        inner = f"{path}.{name}" if path else name
        yield ""
        if isinstance(value, InBatchConfig):
            yield from _samplers(inner, field)
        else:
            yield from _comment(type(value).__doc__ or "")
            yield f"[{inner}]"
            yield from _table(value, inner)


def _key(name: str, value: object, field: FieldInfo) -> Iterator[str]:
    bounds = ", ".join(
        f"{sign} {getattr(rule, limit)}"
        for rule in field.metadata
        for limit, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
        if getattr(rule, limit, None) is not None
    )
    yield from _comment(f"{field.description or name}{f' ({bounds})' if bounds else ''}")
    yield f"{name} = {json.dumps(value)}"


def _samplers(path: str, field: FieldInfo) -> Iterator[str]:
    """Yield the default sampler's table, and the others as comments."""
    yield from _comment(field.description or "")
    yield f"[{path}]"
    yield 'name = "in-batch"'
    yield from _comment(f"in-batch: {InBatchConfig.__doc__}")
    yield from _comment(f"uniform: {UniformConfig.__doc__}")
    count: Any = UniformConfig.model_fields["count"]
    yield f"# count = {count.default}  # uniform only: {count.description}"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 94)]
