"""The JSON Schemas of bodies and results: each class under a good name, each property with what it
means and an example."""

import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from ingest.console.api import docstrings
from ingest.console.api.names import NAMES
from ingest.console.api.words import WHOLE, WORDS

REF = "#/components/schemas/"
_OF_ENUMS = {cls.__name__: name for cls, name in NAMES.items() if issubclass(cls, Enum)}
"""What the API calls enumerations: pydantic sets their titles late."""
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}
_FORMATS: Mapping[str, Callable[[str], object]] = {
    "uuid": UUID,
    "date-time": datetime.fromisoformat,
    "date": date.fromisoformat,
}


def make(types: Iterable[tuple[Any, Any, Any]]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Return the schemas of types by their keys, and the definitions that those refer to.

    Args:
        types: a key, `validation` or `serialization`, and the type.
    """
    inputs = [(key, mode, TypeAdapter(of)) for key, mode, of in types]
    schemas, shared = TypeAdapter.json_schemas(
        inputs, ref_template=REF + "{model}", schema_generator=Describing
    )
    definitions = shared.get("$defs", {})
    for schema in definitions.values():
        schema["title"] = _OF_ENUMS.get(schema["title"], schema["title"])
    names = {REF + key: REF + schema["title"] for key, schema in definitions.items()}
    shared_names = [name for name, times in Counter(names.values()).items() if times > 1]
    if shared_names:
        raise ValueError(f"Name them apart in ingest/console/api/names.py: {shared_names}")
    return (
        {key: _renamed(schema, names) for (key, _mode), schema in schemas.items()},
        {schema["title"]: _renamed(schema, names) for schema in definitions.values()},
    )


def parameters(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schemas of a model's fields by name, without references and without null: a
    parameter is null by being left out."""
    schema = model.model_json_schema(schema_generator=Describing)
    definitions = schema.get("$defs", {})
    return {
        name: _without_null(_resolved(member, definitions))
        for name, member in schema["properties"].items()
    }


class Describing(GenerateJsonSchema):
    """Makes schemas in which each property says what it means."""

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Return the schema of a dataclass."""
        return _described(super().dataclass_schema(schema), schema["cls"])

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Return the schema of a model."""
        return _described(super().model_schema(schema), schema["cls"])

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False: a title that repeats the name says nothing."""
        return False

    def field_is_required(self, field: Any, total: bool) -> bool:
        """Return whether a field is always there: a result has all of its fields."""
        return self.mode == "serialization" or super().field_is_required(field, total)


def _described(schema: JsonSchemaValue, cls: type) -> JsonSchemaValue:
    schema["title"] = _name(cls)
    text = schema.get("description") or inspect.getdoc(cls)  # a list of one kind inherits it
    if text:
        schema["description"] = docstrings.plain(text)
    if cls in WHOLE:
        schema["examples"] = [json.loads(json.dumps(WHOLE[cls]))]
    said = docstrings.of_fields(cls)
    for name, member in schema.get("properties", {}).items():
        _describe(member, name, said.get(name))
    return schema


def _name(cls: type) -> str:
    """Return what the API calls a class; a list of one kind is called after that."""
    arguments = getattr(cls, "__pydantic_generic_metadata__", {}).get("args", ())
    return f"{_name(arguments[0])}List" if arguments else NAMES.get(cls, cls.__name__)


def _describe(member: dict[str, Any], name: str, said: str | None) -> None:
    word = WORDS.get(name)
    text = member.get("description") or said or (word.meaning if word else None)
    if text is not None:
        member["description"] = text
    if "examples" not in member and word is not None:
        fitting = [fit for value in word.examples for fit in _fits(member, value)]
        if fitting:
            member["examples"] = fitting[:1]


def _fits(schema: Mapping[str, Any], value: Any) -> Iterator[Any]:
    """Yield a value if a schema without references tells of it, and a list of it if that does."""
    if "enum" in schema or "const" in schema:
        if value in schema.get("enum", (schema.get("const"),)):
            yield value
    elif "anyOf" in schema:
        for choice in schema["anyOf"]:
            yield from _fits(choice, value)
    elif schema.get("type") != "array":
        if _is_of(schema, value):
            yield value
    elif "prefixItems" not in schema:
        yield from ([fit] for fit in _fits(schema.get("items", {}), value))
    elif isinstance(value, list) and len(value) == len(schema["prefixItems"]):
        yield value


def _is_of(schema: Mapping[str, Any], value: Any) -> bool:
    kind = schema.get("type", "")
    if kind not in _TYPES or not isinstance(value, _TYPES[kind]):
        return False
    if isinstance(value, bool) and kind != "boolean":
        return False
    return _has_format(schema.get("format"), value)


def _has_format(name: str | None, value: Any) -> bool:
    read = _FORMATS.get(name or "")
    if read is None:
        return True
    try:
        read(value)
    except ValueError:
        return False
    return True


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    """Return a schema whose references have the good names."""
    if isinstance(schema, dict):
        return {
            key: names.get(value, value) if key == "$ref" else _renamed(value, names)
            for key, value in schema.items()
        }
    return [_renamed(value, names) for value in schema] if isinstance(schema, list) else schema


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with its reference replaced: query parameters have no shared definitions."""
    if "$ref" in schema:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return {**definitions[schema["$ref"].rpartition("/")[2]], **rest}
    return schema


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    choices = [choice for choice in schema.get("anyOf", []) if choice.get("type") != "null"]
    if len(choices) != 1:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**rest, **choices[0]}
