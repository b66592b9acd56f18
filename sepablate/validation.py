"""One-line errors: pydantic's errors with the place, the value and the valid choices."""

import dataclasses
import reprlib
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sepablate.errors import UserError

T = TypeVar("T")
Schema = dict[str, Any]
BOUNDS = {
    "exclusiveMinimum": "more than",
    "minimum": "at least",
    "exclusiveMaximum": "less than",
    "maximum": "at most",
}


def parse(cls: type[T], values: object, place: str) -> T:
    """Return a pydantic dataclass made from a mapping of its fields.

    Args:
        cls: The dataclass. Its JSON schema gives the valid choices that an error names.
        values: The mapping, as YAML or JSON gave it.
        place: Where the mapping stands, such as `params.yaml: scales.smoke`.

    Raises:
        UserError: A field is unknown, missing or invalid.
    """
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise _error(place, f"{_shown(values)}: choose a mapping of {', '.join(names)}")
    for key in values:
        if key not in names:
            raise _error(f"{place}.{key}", f"unknown: choose {', '.join(names)}")
    try:
        return cls(**values)
    except ValidationError as error:
        schema, first = TypeAdapter(cls).json_schema(), error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"] if part != "[key]"]
    hint = f"choose {_choices(_part(schema, first['loc']))}"
    if first["type"] == "missing":
        raise _error(".".join([place, *path]), f"missing: {hint}")
    if first["type"] == "value_error":
        hint = str(first["ctx"]["error"])
    raise _error(".".join([place, *path]), f"{_shown(first['input'])}: {hint}")


def _error(place: str, message: str) -> UserError:
    return UserError(" ".join(f"{place}: {message}".split()))  # a key may contain line breaks


def _shown(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # Python prints no integer of more than 4300 digits
        return "a number of thousands of digits"


def _part(schema: Schema, path: tuple[int | str, ...]) -> Schema:
    """Return the schema of the value at a path of names and indices."""
    for part in path:
        inside = schema.get("properties", {}).get(part) or schema.get("items")
        # Only a key, which pydantic marks with [key], is in none of them.
        schema = inside or schema.get("additionalProperties") or {"type": "string"}
    return schema


def _choices(schema: Schema) -> str:
    """Describe the values that a schema accepts."""
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return ", or ".join(map(_choices, schema["anyOf"]))
    if "pattern" in schema:
        return "a name"
    kind = schema["type"]
    if kind == "array":
        most = schema.get("maxLength")  # so pydantic calls it, where a validator comes before it
        many = f"1 to {most}" if most else "one or more"
        return f"a list of {many}, each {_choices(schema['items'])}"
    if kind == "object":
        return f"a mapping by name, each value {_choices(schema['additionalProperties'])}"
    bounds = [f"{words} {schema[key]}" for key, words in BOUNDS.items() if key in schema]
    unbounded = not {"maximum", "exclusiveMaximum"} & schema.keys()
    nouns = {
        "integer": "a whole number",
        "number": "a finite number" if unbounded else "a number",
        "boolean": "true or false",
        "string": "text",
        "null": "null",
    }
    return ", ".join([nouns[kind], *filter(None, [" and ".join(bounds)])])
