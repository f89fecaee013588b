"""The OpenAPI document, made from the same declarations that the router is made from."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, TypeAdapter

from ingest.console.api.endpoints import Endpoint, Problem
from ingest.console.ui.paths import LARGEST_NUMBER, NUMBER

_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")
_PATH_TYPES: dict[str, dict[str, Any]] = {
    "uuid": {"type": "string", "format": "uuid"},
    NUMBER: {"type": "integer", "minimum": 0, "maximum": LARGEST_NUMBER},
    "": {"type": "string", "minLength": 1, "pattern": r"^[^/\x00]+$"},
    "path": {"type": "string", "minLength": 1, "pattern": r"^[^\x00]+$"},
}
_ALWAYS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


def document(endpoints: Sequence[Endpoint], *, prefix: str, version: str) -> dict[str, Any]:
    """The API as OpenAPI 3.1 describes it.

    Args:
        endpoints: its operations.
        prefix: of every path.
        version: of this program.
    """
    schemas = _Schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        path = prefix + _PARAMETER.sub(r"{\1}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ingest",
            "version": version,
            "description": "What came in, what became of it, and what to do about it.",
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


class _Schemas:
    """The schemas of everything that goes in and out."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        inputs: list[tuple[Any, Any, TypeAdapter[Any]]] = [
            (("out", number), "serialization", TypeAdapter(each.answers))
            for number, each in enumerate(endpoints)
        ]
        inputs += [
            (("in", number), "validation", TypeAdapter(each.body))
            for number, each in enumerate(endpoints)
            if each.body is not None
        ]
        inputs.append((("problem", 0), "serialization", TypeAdapter(Problem)))
        found, whole = TypeAdapter.json_schemas(inputs, ref_template=_REF)
        self.definitions = whole.get("$defs", {})
        self._found = {key: schema for (key, _mode), schema in found.items()}
        self._numbers = {id(each): number for number, each in enumerate(endpoints)}

    def answer(self, endpoint: Endpoint) -> Any:
        return self._found["out", self._numbers[id(endpoint)]]

    def body(self, endpoint: Endpoint) -> Any:
        return self._found["in", self._numbers[id(endpoint)]]

    @property
    def problem(self) -> Any:
        return self._found["problem", 0]


def _operation(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    changes = endpoint.method != "GET"
    errors = {*_ALWAYS, *endpoint.errors}
    if _PARAMETER.search(endpoint.path):
        errors.add(HTTPStatus.NOT_FOUND)  # what is no id is no path of ours
    if changes:
        errors.add(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    described: dict[str, Any] = {
        "operationId": _name(endpoint),
        "summary": endpoint.summary,
        "parameters": [*_path_parameters(endpoint.path), *_query_parameters(endpoint.query)],
        "responses": {
            "200": _content("Done." if changes else "Found.", schemas.answer(endpoint)),
            **{
                str(int(status)): _content(status.phrase, schemas.problem)
                for status in sorted(errors)
            },
        },
    }
    if endpoint.body is not None:
        described["requestBody"] = {
            "required": endpoint.needs_body,
            "content": {"application/json": {"schema": schemas.body(endpoint)}},
        }
    return described


def _name(endpoint: Endpoint) -> str:
    words = re.findall(r"[a-z]+", re.sub(r":\w+", "", endpoint.path.replace("-", "/")))
    return "_".join([endpoint.method.lower(), *words])


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _PATH_TYPES[kind]}
        for name, kind in _PARAMETER.findall(path)
    ]


def _query_parameters(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": _without_null(_resolved(each, definitions)),
        }
        for name, each in schema["properties"].items()
    ]


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Query parameters stand alone, so what they refer to is put in its place."""
    if "$ref" in schema:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return {**definitions[schema["$ref"].rpartition("/")[2]], **rest}
    return schema


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is left out is null; none is spelled so."""
    choices = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
    if len(choices) != 1:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**rest, **choices[0]}


def _content(description: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
