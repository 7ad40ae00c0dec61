"""The configuration reference, rendered from the pydantic models."""

import json
from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from md_table import sentence, table
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from service.settings import PREFIX, Settings
from trainer.config import RunConfig
from trainer.samplers.config import SamplerConfig

SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def service_settings() -> str:
    """Render every `ESANS_*` variable as one table."""
    rows = [
        [
            f"`{PREFIX}{name.upper()}`",
            _default_of(field),
            _range_of(field),
            sentence(field.description or ""),
        ]
        for name, field in Settings.model_fields.items()
    ]
    return table(["Variable", "Default", "Range", "Meaning"], rows)


def run_configuration() -> str:
    """Render every TOML key: a heading and a table for each section and each sampler."""
    return "\n".join(_section("", RunConfig))


def _section(path: str, model: type[BaseModel]) -> Iterator[str]:
    keys, sections = {}, {}
    for name, field in model.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        (sections if is_section else keys)[f"{path}{name}"] = field
    samplers = keys.pop("training.sampler", None)
    if path:
        yield f"### `[{path.rstrip('.')}]`\n"
        yield sentence(model.__doc__ or "") + "\n"
    yield _keys(keys)
    if samplers is not None:
        yield from _samplers("training.sampler.")
    for name, field in sections.items():
        yield from _section(f"{name}.", field.annotation)  # type: ignore[arg-type]


def _samplers(path: str) -> Iterator[str]:
    """Render one subsection for each sampler that `training.sampler.name` may choose."""
    yield "### `[training.sampler]`\n"
    yield "`training.sampler.name` chooses the sampler; the other keys depend on it.\n"
    for model in get_args(get_args(SamplerConfig)[0]):
        (name,) = get_args(model.model_fields["name"].annotation)
        keys = {f"{path}{key}": field for key, field in model.model_fields.items() if key != "name"}
        default = " (default)" if isinstance(RunConfig().training.sampler, model) else ""
        yield f'#### `name = "{name}"`{default}\n'
        yield sentence(model.__doc__ or "") + "\n"
        yield _keys(keys) if keys else ""


def _keys(fields: dict[str, FieldInfo]) -> str:
    head = ["Key", "Default", "Range", "Meaning"]
    rows = [
        [f"`{name}`", _default_of(field), _range_of(field), sentence(field.description or "")]
        for name, field in fields.items()
    ]
    return table(head, rows)


def _default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.default
    if default is None or (isinstance(default, SecretStr) and not default.get_secret_value()):
        return "unset"
    return f"`{json.dumps(default)}`"


def _range_of(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    return ", ".join(
        f"{sign} {getattr(rule, limit)}"
        for rule in field.metadata
        for limit, sign in SIGNS.items()
        if getattr(rule, limit, None) is not None
    )
