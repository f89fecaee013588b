"""The OpenAPI document, made from the same declarations as the routes."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, TypeAdapter

from ingest.console.api.endpoints import Endpoint, ErrorBody
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
    """Return the OpenAPI 3.1 description of the API.

    Args:
        endpoints: its operations.
        prefix: what every path begins with.
        version: the version of ingest.
    """
    schemas = _Schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = prefix + _PARAMETER.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ingest",
            "version": version,
            "description": "Search, inspect, replay and discard webhook events.",
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
    """The schemas of all bodies and results."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        types: list[tuple[Any, Any, TypeAdapter[Any]]] = [
            ((endpoint.name, "result"), "serialization", TypeAdapter(endpoint.result))
            for endpoint in endpoints
        ]
        types += [
            ((endpoint.name, "body"), "validation", TypeAdapter(endpoint.body))
            for endpoint in endpoints
            if endpoint.body is not None
        ]
        types.append((("error", ""), "serialization", TypeAdapter(ErrorBody)))
        schemas, shared = TypeAdapter.json_schemas(types, ref_template=_REF)
        self.definitions = shared.get("$defs", {})
        self._schemas = {key: schema for (key, _mode), schema in schemas.items()}

    def result(self, endpoint: Endpoint) -> Any:
        return self._schemas[endpoint.name, "result"]

    def body(self, endpoint: Endpoint) -> Any:
        return self._schemas[endpoint.name, "body"]

    @property
    def error(self) -> Any:
        return self._schemas["error", ""]


def _operation(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    changes = endpoint.method != "GET"
    errors = {*_ALWAYS, *endpoint.errors}
    if _PARAMETER.search(endpoint.path):
        errors.add(HTTPStatus.NOT_FOUND)  # an invalid id matches no route
    if changes:
        errors.add(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": [*_path_parameters(endpoint.path), *_query_parameters(endpoint.query)],
        "responses": {
            "200": _content("Success.", schemas.result(endpoint), endpoint.streams),
            **{
                str(int(status)): _content(status.phrase, schemas.error)
                for status in sorted(errors)
            },
        },
    }
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": endpoint.needs_body,
            "content": {"application/json": {"schema": schemas.body(endpoint)}},
        }
    return operation


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
            "schema": _without_null(_resolve(member, definitions)),
        }
        for name, member in schema["properties"].items()
    ]


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with its reference replaced: query parameters have no shared definitions."""
    if "$ref" in schema:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        return {**definitions[schema["$ref"].rpartition("/")[2]], **rest}
    return schema


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without null: a parameter is null by being left out."""
    choices = [choice for choice in schema.get("anyOf", []) if choice.get("type") != "null"]
    if len(choices) != 1:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**rest, **choices[0]}


def _content(description: str, schema: Any, types: Sequence[str] = ()) -> dict[str, Any]:
    content = {media_type: {"schema": schema} for media_type in types or ("application/json",)}
    return {"description": description, "content": content}
