"""Configuration reference: TOML with every key, its default, range and description."""

import json
import textwrap
from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from trainer.config import RunConfig
from trainer.samplers.config import SamplerConfig

HEAD = """\
# Every setting of a training run, with its default. All keys are optional; unknown keys are
# rejected. Usage: python -m trainer run --config FILE --data DIR --bundles DIR
"""


def example_config() -> str:
    """Render the default configuration as commented TOML."""
    return "\n".join([HEAD, *_table(RunConfig(), "")]).rstrip() + "\n"


def _table(part: BaseModel, path: str) -> Iterator[str]:
    """Yield the lines of a table: its keys, then its nested tables."""
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
        yield from _comment(field.description or type(value).__doc__ or "")
        yield f"[{inner}]"
        if name == "sampler":
            yield from _samplers(value)
        else:
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


def _samplers(chosen: BaseModel) -> Iterator[str]:
    """Yield the keys of the default sampler, and those of all others as comments."""
    parts = get_args(get_args(SamplerConfig)[0])
    yield from _sampler(type(chosen))
    for part in parts:
        if part is not type(chosen):
            yield "#"
            yield from (line if line.startswith("#") else f"# {line}" for line in _sampler(part))


def _sampler(part: type[BaseModel]) -> Iterator[str]:
    """Yield the keys of one sampler, with its description above its name."""
    for key, field in part.model_fields.items():
        if key == "name":
            (name,) = get_args(field.annotation)
            yield from _comment(part.__doc__ or "")
            yield f"name = {json.dumps(name)}"
        else:
            yield from _key(key, field.default, field)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 94)]
