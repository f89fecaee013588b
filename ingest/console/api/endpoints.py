"""How an operation of the JSON API is declared, read and answered."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, get_type_hints

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
from ingest.console.ui import forms


class Input(BaseModel):
    """What a request brings; what is not asked for is refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, read."""

    by: Identity
    path: Mapping[str, Any]
    query: Any
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with a request, or with us."""

    error: str
    """A slug for programs."""
    message: str
    """A sentence for people."""


Handler = Callable[[Console, Call], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One operation of the API: a function and its schema."""

    method: Literal["GET", "POST"]
    path: str
    summary: str
    answers: Any
    """The type of a good answer: what the function says that it returns."""
    handle: Handler
    query: type[Input] | None
    body: type[Input] | None
    needs_body: bool
    """Whether it means nothing without one."""
    errors: tuple[HTTPStatus, ...]


def get(
    path: str,
    *,
    query: type[Input] | None = None,
    errors: tuple[HTTPStatus, ...] = (),
) -> Callable[[Handler], Endpoint]:
    """Declare a function that reads; its docstring and return type are part of the document.

    Args:
        path: after the API's prefix.
        query: the model of its parameters; None: it takes none.
        errors: answers that not every operation gives.
    """

    def declare(handle: Handler) -> Endpoint:
        return Endpoint(
            method="GET",
            path=path,
            summary=_summary(handle),
            answers=get_type_hints(handle)["return"],
            handle=handle,
            query=query,
            body=None,
            needs_body=False,
            errors=errors,
        )

    return declare


def post(
    path: str,
    *,
    body: type[Input],
    needs_body: bool = False,
    errors: tuple[HTTPStatus, ...] = (),
) -> Callable[[Handler], Endpoint]:
    """Declare a function that changes something, as `get` does one that reads.

    Args:
        path: after the API's prefix.
        body: the model of its body.
        needs_body: whether it means nothing without one.
        errors: answers that not every operation gives.
    """

    def declare(handle: Handler) -> Endpoint:
        return Endpoint(
            method="POST",
            path=path,
            summary=_summary(handle),
            answers=get_type_hints(handle)["return"],
            handle=handle,
            query=None,
            body=body,
            needs_body=needs_body,
            errors=errors,
        )

    return declare


def _summary(handle: Handler) -> str:
    """Return what a function's docstring says, as the document has it."""
    return (handle.__doc__ or "").removesuffix(".")


def routes(console: Console, endpoints: Sequence[Endpoint], *, prefix: str) -> list[BaseRoute]:
    """Return the routes of endpoints, one a path.

    Of two routes the first would answer 405 and name its own methods only.
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


def problem_of(error: Exception) -> Response:
    """Return the answer to an error that an operation raised."""
    explained = errors.describe(error)
    return JSONResponse({"error": explained.code, "message": explained.sentence}, explained.status)


def _by_method(by_method: Mapping[str, Callable[[Request], Any]]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        response: Response = await by_method[method](request)
        return response

    return answer


def _serve(console: Console, endpoint: Endpoint) -> Callable[[Request], Any]:
    adapter: TypeAdapter[Any] = TypeAdapter(endpoint.answers)

    async def answer(request: Request) -> Response:
        try:
            call = await _read(request, endpoint)
            result = await run_in_threadpool(endpoint.handle, console, call)
        except HTTPException:
            raise
        except Exception as error:
            return problem_of(error)
        return Response(adapter.dump_json(result), media_type="application/json")

    return answer


async def _read(request: Request, endpoint: Endpoint) -> Call:
    """Return what a request brings. Raises BadRequest."""
    parameters = request.query_params
    repeated = [name for name in parameters if len(parameters.getlist(name)) > 1]
    if repeated:
        raise BadRequest(f"{repeated[0]} is given more than once.", reason="bad_query")
    query = body = None
    if endpoint.query is not None:
        query = _checked(endpoint.query, dict(parameters), "bad_query")
    elif parameters:
        raise BadRequest("This takes no query parameters.", reason="bad_query")
    if endpoint.body is not None:
        body = _checked(endpoint.body, await request.body() or b"{}", "bad_body")
    return Call(by=request.user, path=request.path_params, query=query, body=body)


def _checked(model: type[Input], values: bytes | dict[str, str], reason: str) -> Any:
    try:
        if isinstance(values, bytes):  # "yes" is no `true` in JSON
            return model.model_validate_json(values, strict=True)
        return model(**values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise BadRequest(f"{where}: {first['msg']}.", reason=reason) from None
