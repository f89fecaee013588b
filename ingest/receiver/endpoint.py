"""The ASGI endpoint: `POST /webhooks/{source}`, and `GET` for the challenges of some senders.

Raw ASGI, because Starlette's Request and Response halve the throughput (11,700 against 25,600
requests a second, one process, body and HMAC included).
"""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from ingest.errors import BodyTooLarge, IngestError, UnknownSource
from ingest.receiver import responses
from ingest.receiver.body import LEAVES_REST, BodyReader, Disconnected
from ingest.receiver.decide import (
    ChallengeAnswer,
    CostlyBody,
    Refusal,
    Rejected,
    Request,
    decide,
    decide_challenge,
    decide_named,
    kept_headers,
)
from ingest.receiver.identifier_process import Namer
from ingest.receiver.intake import Intake
from ingest.receiver.responses import Response
from ingest.sources.base import Headers, Source


class Endpoint:
    """Reads, decides, stores and answers."""

    def __init__(self, intake: Intake, bodies: BodyReader, namer: Namer) -> None:
        self._intake = intake
        self._bodies = bodies
        self._namer = namer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever it is."""
        request = self._begin(scope)
        source = self._intake.sources.get(request.source)
        body: bytes | None = None
        try:
            if request.method == "POST":
                source = _known(source)
                body = await self._bodies.read(scope, receive, self._intake.body_limit(source))
                response = await self._answer(request, source, body)
            else:
                body = b""
                response = _answer_challenge(request, source)
                self._intake.count_challenge(request)
        except Disconnected:
            self._intake.note_disconnect(request)
        except IngestError as error:
            refusal = self._intake.refuse(request, error, body)
            await self._send_refusal(request, receive, send, error, refusal)
        except HTTPException:
            raise
        except Exception as error:
            await _send(send, request, self._intake.fail(error, request, body))
        else:
            await _send(send, request, response)

    def _begin(self, scope: Scope) -> Request:
        target: bytes = scope.get("raw_path") or scope["path"].encode()
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        return self._intake.begin(
            scope["path_params"]["source"],
            scope.get("client"),
            scope["headers"],
            target.decode("latin-1"),
            scope["method"],
        )

    async def _answer(self, request: Request, source: Source, body: bytes) -> Response:
        """Return a 200; every other answer is an exception."""
        decision = decide(request, source, body)
        if isinstance(decision, CostlyBody):
            headers = kept_headers(request.headers, source)
            named = await self._namer.name(source, body, headers)
            decision = decide_named(request, source, body, headers, decision.key_id, named)
        if isinstance(decision, Refusal):
            raise decision.error
        if isinstance(decision, ChallengeAnswer):
            self._intake.count_challenge(request)
            return responses.success(decision.answer)
        if isinstance(decision, Rejected):
            await self._intake.writer.append(decision.delivery)
            raise decision.error
        await self._intake.writer.append(decision)
        self._intake.count_answer(request, decision.key_id)
        return responses.success(source.success)

    async def _send_refusal(
        self,
        request: Request,
        receive: Receive,
        send: Send,
        error: IngestError,
        response: Response,
    ) -> None:
        if isinstance(error, LEAVES_REST):
            closing = [*response.more_headers, (b"connection", b"close")]
            response = response._replace(more_headers=closing)
        lingers = isinstance(error, BodyTooLarge) and not expects_continue(request.headers)
        await _send(send, request, response, ends=not lingers)
        if lingers:
            await self._bodies.drop_rest(receive)
            await send({"type": "http.response.body", "body": b""})


def _known(source: Source | None) -> Source:
    if source is None:
        raise UnknownSource("No such source.", reason="unknown_source")
    return source


def _answer_challenge(request: Request, source: Source | None) -> Response:
    """Return the answer to a challenge that is no POST.

    Raises:
        InvalidSignature: the source signs its challenges, and this one not.
        HTTPException: the source has no such challenge (405).
    """
    decision = None
    if source is not None and request.method == "GET":
        decision = decide_challenge(request, source, b"")
    if isinstance(decision, Refusal):
        raise decision.error
    if decision is None:
        raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "POST"})
    return responses.success(decision.answer)


def expects_continue(headers: Headers) -> bool:
    """Return whether the sender waits to be told before it sends its body: then the body need not
    be read."""
    return any(name == b"expect" for name, _ in headers)


async def _send(send: Send, request: Request, response: Response, *, ends: bool = True) -> None:
    """Send an answer. Unless it `ends` here, the caller ends it."""
    await send(
        {
            "type": "http.response.start",
            "status": response.status.value,
            "headers": responses.headers(response, request.id),
        }
    )
    await send({"type": "http.response.body", "body": response.body, "more_body": not ends})
