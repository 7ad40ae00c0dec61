"""What all calls share: ids, the bounds of lists, and what is wrong when something is.

Questions are models, checked on arrival. Answers are typed dicts: written as they are, so that
a key with nothing to say is absent, and described by the same types in /openapi.json. Each
group of calls has a file of its own beside this one.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, JsonValue
from pydantic_core import core_schema
from typing_extensions import TypedDict

ID_LENGTH = 512
LIST_LENGTH = 10_000


class _CheckedBy:
    """Checks a value by a schema of pydantic's core; as metadata of an `Annotated` type."""

    def __init__(self, schema: core_schema.CoreSchema) -> None:
        self._schema = schema

    def __get_pydantic_core_schema__(
        self, source: type, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return self._schema


def _in_lower_case(value: object) -> str:
    return str(value).lower()


converted_by = core_schema.no_info_after_validator_function
CHOICES: list[core_schema.CoreSchema | tuple[core_schema.CoreSchema, str]] = [
    core_schema.str_schema(strict=True, min_length=1, max_length=ID_LENGTH),
    converted_by(str, core_schema.int_schema(strict=True, ge=-(2**63), lt=2**64)),
    converted_by(_in_lower_case, core_schema.bool_schema(strict=True)),
]
TEXT_OR_INTEGER = core_schema.union_schema(
    CHOICES[:2],
    mode="left_to_right",
    custom_error_type="id",
    custom_error_message=f"an id is text of 1 to {ID_LENGTH} characters or an integer of 64 bits; "
    "write others as text",
)
PLAIN_VALUE = core_schema.union_schema(
    CHOICES,
    mode="left_to_right",
    custom_error_type="value",
    custom_error_message=f"a value is text of 1 to {ID_LENGTH} characters, an integer of 64 bits, "
    "or a boolean; write others as text",
)

Source = Literal["redis", "folder", "bundle"]
Id = Annotated[str, _CheckedBy(TEXT_OR_INTEGER)]
Value = Annotated[str, _CheckedBy(PLAIN_VALUE)]
# of a list the first fault is told: the others would cost a microsecond each
Ids = Annotated[list[Id], Field(max_length=LIST_LENGTH, fail_fast=True)]


def example(**values: JsonValue) -> ConfigDict:
    """Show values on /docs, ready to be sent; for `model_config`, which it is merged into."""
    return ConfigDict(json_schema_extra={"examples": [values]})


def none_by_default(kind: type[list[Any]] | type[dict[str, Any]], description: str) -> Any:  # noqa: ANN401  # as `Field` itself
    """Describe a field that is empty where it is absent.

    Made anew for each question: pydantic would copy a default deeply, 2 us each.
    """
    return Field(
        default_factory=kind, description=description, json_schema_extra={"default": kind()}
    )


class RequestModel(BaseModel):
    """What a caller sends: it cannot change, and nothing in it is guessed or passed over."""

    # values are not kept: of millions of ids hardly one comes again while it would be
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, cache_strings="keys")


class Fault(TypedDict):
    """One thing wrong with a body."""

    location: Annotated[str, Field(description="path to the value, for example history.3")]
    received: str
    expected: str


class Problem(TypedDict):
    """What went wrong (RFC 9457)."""

    type: Annotated[str, Field(description="which kind; about:blank where the status says it")]
    title: str
    status: int
    detail: str
    instance: Annotated[str, Field(description="the path that was asked")]
    request_id: Annotated[str, Field(description="as in X-Request-ID and in the logs")]
    errors: NotRequired[Annotated[list[Fault], Field(description="of a body, with 422")]]
    reasons: NotRequired[
        Annotated[list[str], Field(description="of a bundle that was refused, with 409")]
    ]
