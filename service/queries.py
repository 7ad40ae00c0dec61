"""Queries: a path and its query string, checked against a schema as a body is."""

import re
from collections.abc import Sequence
from typing import Any, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from starlette.requests import Request

from service.bodies import InvalidRequestError, Model, faults_of

DECIMALS = re.compile(r"-?[0-9]{1,20}")


class InvalidQueryError(InvalidRequestError):
    """The path or the query string is not as it must be."""


def read_query(request: Request, schema: type[Model]) -> Model:
    """Check what a path and its query string say; only lists may be given in pieces.

    Raises InvalidQueryError with every fault.
    """
    given: dict[str, Any] = dict(request.path_params)
    for name, values in _gathered(request.query_params.multi_items()).items():
        if name in request.path_params:
            name = f"{name} (in the query)"  # no field is called so
        given[name] = _read(schema.model_fields.get(name), values)
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise InvalidQueryError(faults_of(error)) from error


def _gathered(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Put the values of each name together."""
    gathered: dict[str, list[str]] = {}
    for name, value in pairs:
        gathered.setdefault(name, []).append(value)
    return gathered


def _read(field: FieldInfo | None, values: list[str]) -> object:
    """Take texts for what the field holds; what does not fit is left to the schema."""
    if len(values) > 1 or (field and get_origin(field.annotation) is list):
        return values
    (value,) = values
    if field and field.annotation is int and DECIMALS.fullmatch(value):
        return int(value)
    return value
