"""The OpenAPI document, made from the same declarations as the routes."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from ingest.console.api import schemas
from ingest.console.api.endpoints import IDEMPOTENCY_KEY, REPLAYED, Endpoint, ErrorBody
from ingest.console.api.examples import example
from ingest.console.api.tags import PARAMETERS, TAGS, tag_of
from ingest.console.services.keyed_requests import KEY
from ingest.console.ui.paths import LARGEST_NUMBER, NUMBER

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
_OF_CHANGES = (
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_ERRORS: Mapping[HTTPStatus, tuple[str, str]] = {
    HTTPStatus.BAD_REQUEST: ("bad_query", "The search is not understood: stat:dead."),
    HTTPStatus.UNAUTHORIZED: ("unauthenticated", "Log in, or send a bearer token."),
    HTTPStatus.FORBIDDEN: ("role_insufficient", "Viewers are read-only."),
    HTTPStatus.NOT_FOUND: ("not_found", "There is nothing of this id."),
    HTTPStatus.CONFLICT: ("idempotency_key_in_use", "The request of this key has no answer yet."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("request_entity_too_large", "The body is too large."),
    HTTPStatus.UNPROCESSABLE_ENTITY: (
        "idempotency_key_reused",
        "This Idempotency-Key was used for another request.",
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: ("busy", "Another transaction holds a lock that this needs."),
}
"""What an error of each status looks like."""
_KEY = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "required": False,
    "description": "A new random UUID for each change. The same request with the same key is done"
    " once: for 24 hours it gets the answer that it got first.",
    "schema": {"type": "string", "pattern": KEY},
    "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
}
_REPLAYED = {
    REPLAYED: {
        "description": "`true`: the change was made before, by a request with the same key.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
_DESCRIPTION = """Search, inspect, replay and discard webhook events.

Every list has `items`, `next_cursor` and `as_of`; give `next_cursor` back as `cursor` for the \
next page. Every error has `error`, a slug for programs, and `message`, a sentence for people. \
Every change may carry an `Idempotency-Key`, and is made once however often it is sent."""


def document(endpoints: Sequence[Endpoint], *, prefix: str, version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of the API.

    Args:
        endpoints: its operations.
        prefix: what every path begins with.
        version: the version of ingest.
    """
    known = _Schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = prefix + _PARAMETER.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, known)
    used = {tag_of(endpoint.path) for endpoint in endpoints}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ingest",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "tags": [
            {"name": name, "description": text} for name, text in TAGS.items() if name in used
        ],
        "paths": paths,
        "components": {
            "schemas": known.definitions,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Made by `ingest console create-token`.",
                }
            },
        },
    }


class _Schemas:
    """The schemas of all bodies and results."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        types: list[tuple[Any, Any, Any]] = [
            ((endpoint.name, "result"), "serialization", endpoint.result) for endpoint in endpoints
        ]
        types += [
            ((endpoint.name, "body"), "validation", endpoint.body)
            for endpoint in endpoints
            if endpoint.body is not None
        ]
        types.append((("error", ""), "serialization", ErrorBody))
        self._schemas, self.definitions = schemas.make(types)

    def result(self, endpoint: Endpoint) -> Any:
        return self._schemas[endpoint.name, "result"]

    def body(self, endpoint: Endpoint) -> Any:
        return self._schemas[endpoint.name, "body"]

    @property
    def error(self) -> Any:
        return self._schemas["error", ""]

    def content(self, schema: Any) -> dict[str, Any]:
        """Return JSON of a schema, with an example of it."""
        return {
            "application/json": {"schema": schema, "example": example(schema, self.definitions)}
        }


def _operation(endpoint: Endpoint, known: _Schemas) -> dict[str, Any]:
    parameters = [*_path_parameters(endpoint.path), *_query_parameters(endpoint.query)]
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [tag_of(endpoint.path)],
        "summary": endpoint.summary,
        "description": endpoint.description or f"{endpoint.summary}.",
        "parameters": [*parameters, _KEY] if endpoint.changes else parameters,
        "responses": {
            "200": _success(endpoint, known),
            **{str(int(status)): _error(status, known) for status in sorted(_errors(endpoint))},
        },
    }
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": endpoint.needs_body,
            "content": known.content(known.body(endpoint)),
        }
    return operation


def _errors(endpoint: Endpoint) -> set[HTTPStatus]:
    errors = {*_ALWAYS, *endpoint.errors, *(_OF_CHANGES if endpoint.changes else ())}
    # An invalid id matches no route.
    return errors | {HTTPStatus.NOT_FOUND} if _PARAMETER.search(endpoint.path) else errors


def _success(endpoint: Endpoint, known: _Schemas) -> dict[str, Any]:
    result = known.result(endpoint)
    if endpoint.streams:
        content = {
            media_type: {"schema": result, "example": text}
            for media_type, text in endpoint.streams.items()
        }
        return {"description": "Success.", "content": content}
    success = {"description": "Success.", "content": known.content(result)}
    return {**success, "headers": _REPLAYED} if endpoint.changes else success


def _error(status: HTTPStatus, known: _Schemas) -> dict[str, Any]:
    content = known.content(known.error)
    if status in _ERRORS:
        code, sentence = _ERRORS[status]
        content["application/json"]["example"] = {"error": code, "message": sentence}
    return {"description": f"{status.phrase}.", "content": content}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    parameters = []
    for match in _PARAMETER.finditer(path):
        name, kind = match[1], match[2] or ""
        word = PARAMETERS.get(path[: match.start()] + name)
        described = {} if word is None else {"description": word[0], "example": word[1]}
        schema = _PATH_TYPES[kind]
        parameters.append(
            {"name": name, "in": "path", "required": True, **described, "schema": schema}
        )
    return parameters


def _query_parameters(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    return [
        {
            "name": name,
            "in": "query",
            "required": model.model_fields[name].is_required(),
            **({"description": schema["description"]} if "description" in schema else {}),
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }
        for name, schema in schemas.parameters(model).items()
    ]
