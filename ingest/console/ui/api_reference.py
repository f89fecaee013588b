"""The OpenAPI document as pages show it."""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

from markupsafe import Markup, escape

_REF = "#/components/schemas/"
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A parameter or a property."""

    name: str
    place: str
    """`path`, `query` or `header`; empty: it is a property."""
    kind: str
    """Its type in words."""
    schema: str | None
    """The schema that its type names."""
    is_required: bool
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A schema of an object."""

    name: str
    description: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error that an operation answers with."""

    status: str
    meaning: str
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation of the API."""

    id: str
    tag: str
    method: str
    path: str
    summary: str
    description: str
    parameters: tuple[Field, ...]
    path_with_examples: str
    """What a call of it asks for."""
    body: str | None
    """An example of its body; None: it takes none."""
    answer: str
    """An example of its answer."""
    media_types: tuple[str, ...]
    """Of its answer."""
    shapes: tuple[Shape, ...]
    """The schemas of its body and answer, and those that they name."""
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The operations of a tag."""

    name: str
    description: str
    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What the document says, ready to be shown."""

    introduction: tuple[str, ...]
    """What holds for all operations, in paragraphs."""
    sections: tuple[Section, ...]

    def operation(self, name: str) -> Operation | None:
        """Return the operation of a name; None: there is none."""
        known = (one for section in self.sections for one in section.operations)
        return next((one for one in known if one.id == name), None)

    def matching(self, text: str) -> tuple[Section, ...]:
        """Return the sections with those operations that hold each word of a text."""
        words = text.lower().split()
        sections = (
            replace(
                section,
                operations=tuple(one for one in section.operations if _holds(one, words)),
            )
            for section in self.sections
        )
        return tuple(section for section in sections if section.operations)


def read(document: Document) -> Reference:
    """Return what an OpenAPI document says."""
    operations = [
        _operation(document, path, method, raw)
        for path, by_method in document["paths"].items()
        for method, raw in by_method.items()
    ]
    return Reference(
        introduction=tuple(document["info"]["description"].split("\n\n")),
        sections=tuple(
            Section(
                name=tag["name"],
                description=tag["description"],
                operations=tuple(one for one in operations if one.tag == tag["name"]),
            )
            for tag in document["tags"]
        ),
    )


def coded(text: str) -> Markup:
    """Return a text as HTML, with what stands in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r'<code class="mono">\1</code>', str(escape(text))))  # noqa: S704 - escaped before


def command(operation: Operation, *, base: str, has_token: bool) -> str:
    """Return a shell command that calls an operation.

    Args:
        operation: which.
        base: the console's address, such as `http://localhost:8001`.
        has_token: whether a bearer token is needed.
    """
    lines = [f"curl -sS {shlex.quote(base + operation.path_with_examples)}"]
    if has_token:
        lines.append('-H "Authorization: Bearer $INGEST_TOKEN"')
    if operation.method != "GET":
        lines.append('-H "Idempotency-Key: $(uuidgen)"')
    if operation.body is not None:
        lines.append(f"--json {shlex.quote(operation.body)}")
    return " \\\n  ".join(lines)


def _holds(operation: Operation, words: list[str]) -> bool:
    known = (operation.tag, operation.id, operation.method, operation.path, operation.summary)
    text = " ".join(known).lower()
    return all(word in text for word in words)


def _operation(document: Document, path: str, method: str, raw: Mapping[str, Any]) -> Operation:
    success = raw["responses"]["200"]["content"]
    first = next(iter(success.values()))
    body = raw.get("requestBody", {}).get("content", {}).get("application/json")
    named = [first["schema"], *([body["schema"]] if body else [])]
    return Operation(
        id=raw["operationId"],
        tag=raw["tags"][0],
        method=method.upper(),
        path=path,
        summary=raw["summary"],
        description=raw["description"],
        parameters=tuple(map(_parameter, raw["parameters"])),
        path_with_examples=_called(path, raw["parameters"]),
        body=_json(body["example"]) if body else None,
        answer=first["example"] if isinstance(first["example"], str) else _json(first["example"]),
        media_types=tuple(success),
        shapes=tuple(_shapes(document, named)),
        failures=tuple(
            Failure(
                status=status,
                meaning=answer["description"],
                example=answer["content"]["application/json"]["example"]["error"],
            )
            for status, answer in raw["responses"].items()
            if status != "200"
        ),
    )


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _called(path: str, parameters: list[Mapping[str, Any]]) -> str:
    """Return a path with an example for each parameter that it cannot do without."""
    query = {}
    for parameter in parameters:
        value = str(_example(parameter))
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(value))
        elif parameter["in"] == "query" and (parameter["required"] or parameter["name"] == "q"):
            query[parameter["name"]] = value
    return f"{path}?{urlencode(query, quote_via=quote)}" if query else path


def _example(parameter: Mapping[str, Any]) -> Any:
    return parameter.get("example", next(iter(parameter["schema"].get("examples", ())), "…"))


def _parameter(parameter: Mapping[str, Any]) -> Field:
    kind, schema = _kind(parameter["schema"])
    return Field(
        name=parameter["name"],
        place=parameter["in"],
        kind=kind,
        schema=schema,
        is_required=parameter["required"],
        description=parameter.get("description", ""),
    )


def _shapes(document: Document, schemas: list[Mapping[str, Any]]) -> Iterator[Shape]:
    """Yield the objects that schemas name, each once."""
    waiting, seen = [name for schema in schemas for name in _named(schema)], set()
    while waiting:
        name = waiting.pop(0)
        schema = document["components"]["schemas"][name]
        if name in seen or "properties" not in schema:
            continue
        seen.add(name)
        waiting += _named(schema)
        yield Shape(
            name=name,
            description=schema.get("description", ""),
            fields=tuple(
                _property(field, member, is_required=field in schema.get("required", ()))
                for field, member in schema["properties"].items()
            ),
        )


def _named(schema: Any) -> list[str]:
    """Return the names of the schemas that one refers to, in its order."""
    if isinstance(schema, dict):
        own = [schema["$ref"].removeprefix(_REF)] if "$ref" in schema else []
        return own + [name for value in schema.values() for name in _named(value)]
    return [name for value in schema for name in _named(value)] if isinstance(schema, list) else []


def _property(name: str, schema: Mapping[str, Any], *, is_required: bool) -> Field:
    kind, named = _kind(schema)
    return Field(
        name=name,
        place="",
        kind=kind,
        schema=named,
        is_required=is_required,
        description=schema.get("description", ""),
    )


def _kind(schema: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return a schema's type in words, and the schema that it names."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return name, name
    if "anyOf" in schema:
        kinds = [_kind(choice) for choice in schema["anyOf"]]
        return " or ".join(kind for kind, _ in kinds), next(
            filter(None, (n for _, n in kinds)), None
        )
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"] if value is not None), None
    if schema.get("type") == "array":
        kind, name = _kind(schema.get("items", {}))
        return f"list of {kind}" if kind != "any" else "list", name
    if isinstance(schema.get("additionalProperties"), dict):
        kind, name = _kind(schema["additionalProperties"])
        return f"map to {kind}", name
    return schema.get("format") or schema.get("type") or "any", None


FILTERS: Mapping[str, Callable[..., Any]] = {"coded": coded}
