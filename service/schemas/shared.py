"""Shared schemas: ids, list bounds and problems.

Requests are pydantic models, validated on arrival. Responses are typed dicts: encoded without
validation, so that optional keys may be absent, and described by the same types in /openapi.json.
"""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, JsonValue
from pydantic_core import core_schema
from typing_extensions import TypedDict

from index.ids import MAX_ID_LENGTH

EXAMPLE_ITEMS = ("sku-00042", "sku-00007", "sku-00001")  # item ids of all examples
LIST_LENGTH = 10_000


class _CoreSchema:
    """`Annotated` metadata that validates a value with a pydantic core schema."""

    def __init__(self, schema: core_schema.CoreSchema) -> None:
        self._schema = schema

    def __get_pydantic_core_schema__(
        self, source: type, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return self._schema


def _to_lower_case(value: object) -> str:
    return str(value).lower()


convert_after = core_schema.no_info_after_validator_function
VALUE_SCHEMAS: list[core_schema.CoreSchema | tuple[core_schema.CoreSchema, str]] = [
    core_schema.str_schema(strict=True, min_length=1, max_length=MAX_ID_LENGTH),
    convert_after(str, core_schema.int_schema(strict=True, ge=-(2**63), lt=2**64)),
    convert_after(_to_lower_case, core_schema.bool_schema(strict=True)),
]
ID_SCHEMA = core_schema.union_schema(
    VALUE_SCHEMAS[:2],
    mode="left_to_right",
    custom_error_type="id",
    custom_error_message=f"an id is a string of 1 to {MAX_ID_LENGTH} characters or a 64-bit "
    "integer; send others as strings",
)
VALUE_SCHEMA = core_schema.union_schema(
    VALUE_SCHEMAS,
    mode="left_to_right",
    custom_error_type="value",
    custom_error_message=f"a value is a string of 1 to {MAX_ID_LENGTH} characters, a 64-bit "
    "integer or a boolean; send others as strings",
)

Source = Literal["redis", "folder", "bundle"]
Id = Annotated[str, _CoreSchema(ID_SCHEMA)]
Value = Annotated[str, _CoreSchema(VALUE_SCHEMA)]
# only the first error of a list is reported: each further one would cost a microsecond
Ids = Annotated[list[Id], Field(max_length=LIST_LENGTH, fail_fast=True)]


def fill_examples(schema: dict[str, Any], item_ids: Sequence[str]) -> dict[str, Any]:
    """Return a copy of an OpenAPI schema with `EXAMPLE_ITEMS` replaced by ids, if there are any."""
    if not item_ids:
        return schema
    ids = {name: item_ids[row % len(item_ids)] for row, name in enumerate(EXAMPLE_ITEMS)}
    pattern = "|".join(f'"{name}"' for name in ids)
    filled = re.sub(pattern, lambda match: json.dumps(ids[match[0][1:-1]]), json.dumps(schema))
    return cast(dict[str, Any], json.loads(filled))


def example(**values: JsonValue) -> ConfigDict:
    """Return a `model_config` with an example request for /docs."""
    return ConfigDict(json_schema_extra={"examples": [values]})


def empty_by_default(kind: type[list[Any]] | type[dict[str, Any]], description: str) -> Any:  # noqa: ANN401  # as `Field` itself
    """Return a field that defaults to an empty collection.

    A factory is faster than a default, which pydantic deep-copies for each request (2 us).
    """
    return Field(
        default_factory=kind, description=description, json_schema_extra={"default": kind()}
    )


class RequestModel(BaseModel):
    """Base of request models: immutable, strict, without unknown fields."""

    # values are not cached: an id rarely repeats among millions while its cache entry lives
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        cache_strings="keys",
        use_attribute_docstrings=True,
    )


class FieldError(TypedDict):
    """Validation error of one field."""

    location: Annotated[str, Field(description="Path to the value, for example `history.3`.")]
    received: Annotated[str, Field(description="The value, truncated.")]
    expected: Annotated[str, Field(description="What is valid, or how to correct the value.")]


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    # A model, not a typed dict: its schema is built once, not for every status of every route.
    type: str = Field(description="Problem type; `about:blank` if the status describes it.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="Path of the request.")
    request_id: str = Field(description="Request id, as in `X-Request-ID` and in the logs.")
    errors: list[FieldError] = Field(
        default_factory=list, description="Field errors, with status 422."
    )
    reasons: list[str] = Field(
        default_factory=list, description="Why the bundle was rejected, with status 409."
    )
