"""Examples of answers and bodies, put together from those of their properties."""

from collections.abc import Mapping
from typing import Any

from ingest.console.api.schemas import REF

_BY_FORMAT = {
    "uuid": "0199c8f0-1f5a-7c3e-9b1d-0a5b6c7d8e9f",
    "date-time": "2026-11-29T09:52:00Z",
    "date": "2026-11-29",
}
_BY_TYPE: Mapping[str, Any] = {"integer": 1, "number": 1.0, "boolean": False, "string": "text"}


def example(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    """Return a value that a schema describes. A schema within itself is left empty."""
    return _example(schema, definitions, frozenset())


def _example(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], within: frozenset[str]
) -> Any:
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    if "const" in schema:
        return schema["const"]
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(REF)
        return None if name in within else _example(definitions[name], definitions, within | {name})
    if "anyOf" in schema:
        return _first_choice(schema["anyOf"], definitions, within)
    if "properties" in schema:
        return {
            name: _example(member, definitions, within)
            for name, member in schema["properties"].items()
        }
    if schema.get("type") == "array":
        return _items(schema, definitions, within)
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        return {"orders": _example(values, definitions, within)} if isinstance(values, dict) else {}
    return _BY_FORMAT.get(schema.get("format", ""), _BY_TYPE.get(schema.get("type", "")))


def _items(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], within: frozenset[str]
) -> list[Any]:
    if "prefixItems" in schema:
        return [_example(item, definitions, within) for item in schema["prefixItems"]]
    items = schema.get("items", {})
    is_within = items.get("$ref", "").removeprefix(REF) in within
    return [] if is_within else [_example(items, definitions, within)]


def _first_choice(
    choices: list[Mapping[str, Any]], definitions: Mapping[str, Any], within: frozenset[str]
) -> Any:
    for choice in choices:
        if choice.get("type") != "null" and choice.get("$ref", "").removeprefix(REF) not in within:
            return _example(choice, definitions, within)
    return None
