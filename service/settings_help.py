"""What --help says about the settings, taken from the settings themselves."""

from typing import Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from service.settings import PREFIX, Settings


def describe_settings() -> str:
    """Return a line per setting, for --help."""
    lines = []
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else f"default: {_told_default(field)}"
        variable = f"{PREFIX}{name.upper()}"
        lines.append(f"  {variable}\n    {field.description} ({_range_of(field)}{default})")
    return "\n".join(lines)


def _told_default(field: FieldInfo) -> str:
    """Tell a default as a variable spells it."""
    default = field.default
    if default is None or isinstance(default, SecretStr):
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def _range_of(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return f"{', '.join(get_args(field.annotation))}; "
    low = [one.ge for one in field.metadata if isinstance(one, Ge)]
    high = [one.le for one in field.metadata if isinstance(one, Le)]
    return f"{low[0]} to {high[0]}; " if low and high else ""
