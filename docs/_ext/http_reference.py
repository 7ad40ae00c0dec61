"""The HTTP reference, rendered from docs/openapi.json."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from md_table import sentence, table

SPECIFICATION = Path(__file__).parents[1] / "openapi.json"
Json = dict[str, Any]


def operations() -> str:
    """Render every operation: parameters, body, example and responses."""
    return "\n".join(
        line
        for path, methods in _specification()["paths"].items()
        for method, operation in methods.items()
        for line in _operation(f"{method.upper()} {path}", operation)
    )


def schemas() -> str:
    """Render every schema as a table of its fields."""
    return "\n".join(
        line
        for name, schema in sorted(_specification()["components"]["schemas"].items())
        for line in _schema(name, schema)
    )


def _specification() -> Json:
    specification: Json = json.loads(SPECIFICATION.read_text(encoding="utf-8"))
    return specification


def _operation(title: str, operation: Json) -> Iterator[str]:
    yield f"### `{title}`\n"
    yield sentence(operation.get("description") or operation.get("summary", "")) + "\n"
    if operation.get("security"):
        yield "Requires `Authorization: Bearer TOKEN`.\n"
    if parameters := operation.get("parameters"):
        yield table(
            ["Parameter", "In", "Type", "Meaning"],
            [
                [
                    f"`{parameter['name']}`",
                    parameter["in"],
                    _type(parameter["schema"]),
                    sentence(
                        parameter.get("description", parameter["schema"].get("description", ""))
                    ),
                ]
                for parameter in parameters
            ],
        )
    if content := operation.get("requestBody", {}).get("content"):
        yield f"Request body: {_type(next(iter(content.values()))['schema'])}\n"
        yield from _examples(content)
    yield table(
        ["Status", "Body", "Meaning"],
        [
            [status, _body(response), sentence(response["description"])]
            for status, response in operation["responses"].items()
        ],
    )


def _examples(content: Json) -> Iterator[str]:
    """Render the first example of the body's schema."""
    schema = next(iter(content.values()))["schema"]
    if "$ref" in schema:
        schema = _specification()["components"]["schemas"][_name(schema)]
    for example in schema.get("examples", [])[:1]:
        yield f"```json\n{json.dumps(example, indent=2, ensure_ascii=False)}\n```\n"


def _body(response: Json) -> str:
    bodies = [_type(body["schema"]) for body in response.get("content", {}).values() if body]
    return ", ".join(bodies) or "-"


def _schema(name: str, schema: Json) -> Iterator[str]:
    yield f"### {name}\n"
    if description := schema.get("description"):
        yield sentence(" ".join(description.split())) + "\n"
    required = schema.get("required", [])
    if properties := schema.get("properties"):
        yield table(
            ["Field", "Type", "Default", "Meaning"],
            [
                [
                    f"`{field}`",
                    _type(part),
                    "required" if field in required else _default(part),
                    sentence(part.get("description", "")),
                ]
                for field, part in properties.items()
            ],
        )


def _default(part: Json) -> str:
    return f"`{json.dumps(part['default'])}`" if "default" in part else ""


def _type(schema: Json) -> str:
    """Describe a schema in a few words, with its bounds."""
    if "$ref" in schema:
        return f"[{_name(schema)}](#{_name(schema).lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(part) for part in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"`{json.dumps(value)}`" for value in values)
    return _plain_type(schema) + _bounds(schema)


def _plain_type(schema: Json) -> str:
    if schema.get("type") == "array":
        return f"array of {_type(schema['items']) if schema.get('items') else 'anything'}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(schema.get("format") or schema.get("type", "any"))


def _bounds(schema: Json) -> str:
    least = schema.get("minimum", schema.get("minItems"))
    most = schema.get("maximum", schema.get("maxItems", schema.get("maxProperties")))
    if most is None or least == -(2**63):
        return f", ≥ {least}" if least not in (None, 0, -(2**63)) else ""
    return f" ({least or 0} to {most:,})" if isinstance(most, int) else f" (≤ {most})"


def _name(schema: Json) -> str:
    return str(schema["$ref"]).rsplit("/", 1)[-1]
