"""How the JSON API's operations are declared, how requests are read, and how they are answered."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Literal, Protocol, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ingest.console import errors
from ingest.console.auth.identity import Identity
from ingest.console.dependencies import Console
from ingest.console.errors import BadRequest
from ingest.console.services.keyed_requests import KeyedRequest, is_key
from ingest.console.ui import forms

IDEMPOTENCY_KEY, REPLAYED = "Idempotency-Key", "Idempotency-Replayed"


class InputModel(BaseModel):
    """The parameters or the body of a request. Unknown members are refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request whose parameters and body are valid."""

    by: Identity
    path: Mapping[str, Any]
    query: Any
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """The body of every response to a request that failed."""

    error: str
    """A slug that programs can compare."""
    message: str
    """A sentence that people can read."""


class Handler(Protocol):
    """A function that does what an operation says."""

    __name__: str

    def __call__(self, console: Console, request: ApiRequest, /) -> Any:
        """Return the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An operation of the API: a function and its schema."""

    name: str
    """The function's name, which is the document's operationId."""
    method: Literal["GET", "POST"]
    path: str
    summary: str
    result: Any
    """The type of its result, which the function's annotation names."""
    handle: Handler
    query: type[InputModel] | None
    body: type[InputModel] | None
    needs_body: bool
    """Whether the body is required."""
    errors: tuple[HTTPStatus, ...]
    description: str
    """What the docstring says after its first line."""
    streams: Mapping[str, str] = field(default_factory=dict)
    """The media types of a response that its function makes itself, with an example of each;
    empty: the result is JSON."""

    @property
    def changes(self) -> bool:
        """Return whether it may change something."""
        return self.method != "GET"


def get(
    path: str,
    *,
    query: type[InputModel] | None = None,
    errors: tuple[HTTPStatus, ...] = (),
    streams: Mapping[str, str] = MappingProxyType({}),
) -> Callable[[Handler], Endpoint]:
    """Declare a function that reads. The OpenAPI document has its docstring and return type.

    Args:
        path: after the API's prefix.
        query: the model of its query parameters; None: it takes none.
        errors: statuses that not every operation returns.
        streams: media types with an example of each, if the function returns a response.
    """

    def declare(handle: Handler) -> Endpoint:
        return Endpoint(
            name=handle.__name__,
            method="GET",
            path=path,
            summary=_summary(handle),
            description=_description(handle),
            result=str if streams else get_type_hints(handle)["return"],
            handle=handle,
            query=query,
            body=None,
            needs_body=False,
            errors=errors,
            streams=streams,
        )

    return declare


def post(
    path: str,
    *,
    body: type[InputModel],
    needs_body: bool = False,
    errors: tuple[HTTPStatus, ...] = (),
) -> Callable[[Handler], Endpoint]:
    """Declare a function that changes something.

    Args:
        path: after the API's prefix.
        body: the model of its body.
        needs_body: whether the body is required.
        errors: statuses that not every operation returns.
    """

    def declare(handle: Handler) -> Endpoint:
        return Endpoint(
            name=handle.__name__,
            method="POST",
            path=path,
            summary=_summary(handle),
            description=_description(handle),
            result=get_type_hints(handle)["return"],
            handle=handle,
            query=None,
            body=body,
            needs_body=needs_body,
            errors=errors,
        )

    return declare


def _summary(handle: Handler) -> str:
    """Return the first paragraph of a function's docstring, without its full stop."""
    first = inspect.cleandoc(handle.__doc__ or "").partition("\n\n")[0]
    return " ".join(first.split()).removesuffix(".")


def _description(handle: Handler) -> str:
    """Return what follows that."""
    rest = inspect.cleandoc(handle.__doc__ or "").partition("\n\n")[2]
    return " ".join(rest.split())


def routes(console: Console, endpoints: Sequence[Endpoint], *, prefix: str) -> list[BaseRoute]:
    """Return the routes of endpoints, one route for each path.

    If two routes had the same path, the first would answer 405 to the other's method.
    """
    by_path: dict[str, dict[str, Callable[[Request], Any]]] = {}
    for endpoint in endpoints:
        by_path.setdefault(prefix + endpoint.path, {})[endpoint.method] = _serve(console, endpoint)
    return [
        Route(
            path,
            _by_method(by_method),
            methods=list(by_method),
            name=f"api {path}",
            max_body_size=forms.MAX_BYTES,
        )
        for path, by_method in by_path.items()
    ]


def error_response(error: Exception) -> Response:
    """Return the response to an error."""
    described = errors.describe(error)
    return JSONResponse({"error": described.code, "message": described.sentence}, described.status)


def _by_method(by_method: Mapping[str, Callable[[Request], Any]]) -> Callable[[Request], Any]:
    async def respond(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        response: Response = await by_method[method](request)
        return response

    return respond


def _serve(console: Console, endpoint: Endpoint) -> Callable[[Request], Any]:
    adapter: TypeAdapter[Any] = TypeAdapter(endpoint.result)

    def act(valid: ApiRequest) -> bytes:
        return adapter.dump_json(endpoint.handle(console, valid))

    def answer(request: Request, valid: ApiRequest) -> Response:
        if endpoint.streams:
            response: Response = endpoint.handle(console, valid)
            return response
        keyed = _keyed(request, valid) if endpoint.changes else None
        if keyed is None:
            return Response(act(valid), media_type="application/json")
        answered = console.keyed_requests.answer(keyed, partial(act, valid))
        headers = {REPLAYED: "true"} if answered.is_replayed else {}
        return Response(answered.content, media_type="application/json", headers=headers)

    async def respond(request: Request) -> Response:
        try:
            valid = await _read(request, endpoint)
            return await run_in_threadpool(answer, request, valid)
        except HTTPException:
            raise
        except Exception as error:
            return error_response(error)

    return respond


def _keyed(request: Request, valid: ApiRequest) -> KeyedRequest | None:
    """Return a request that has an Idempotency-Key; None: it has none. Raises BadRequest."""
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not is_key(key):
        raise BadRequest(
            "An Idempotency-Key has 8 to 200 visible characters: take a random UUID.",
            reason="bad_idempotency_key",
        )
    body = valid.body.model_dump_json() if valid.body is not None else ""
    content = f"{request.method} {request.url.path}\n{body}"
    return KeyedRequest(by=valid.by, key=key, content=content.encode())


async def _read(request: Request, endpoint: Endpoint) -> ApiRequest:
    """Return a request once its parameters and body are valid. Raises BadRequest."""
    parameters = request.query_params
    repeated = [name for name in parameters if len(parameters.getlist(name)) > 1]
    if repeated:
        raise BadRequest(f"The parameter {repeated[0]} is repeated.", reason="bad_query")
    query = body = None
    if endpoint.query is not None:
        query = _validated(endpoint.query, dict(parameters), "bad_query")
    elif parameters:
        raise BadRequest("This operation takes no query parameters.", reason="bad_query")
    if endpoint.body is not None:
        body = _validated(endpoint.body, await request.body() or b"{}", "bad_body")
    return ApiRequest(by=request.user, path=request.path_params, query=query, body=body)


def _validated(model: type[InputModel], values: bytes | dict[str, str], reason: str) -> Any:
    try:
        if isinstance(values, bytes):  # strict: a body's "yes" is not `true`
            return model.model_validate_json(values, strict=True)
        return model(**values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise BadRequest(f"{where}: {first['msg']}.", reason=reason) from None
