"""The ASGI endpoint: `POST /webhooks/{source}`.

Raw ASGI, because Starlette's Request and Response halve the throughput (11,700 against 25,600
requests a second, one process, body and HMAC included).
"""

from http import HTTPStatus

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
    decide_named,
)
from ingest.receiver.identifier_process import Namer
from ingest.receiver.intake import Intake
from ingest.receiver.responses import RECEIVED, Response
from ingest.sources.base import Headers


class Endpoint:
    """Reads, decides, stores and answers."""

    def __init__(self, intake: Intake, bodies: BodyReader, namer: Namer) -> None:
        self._intake = intake
        self._bodies = bodies
        self._namer = namer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever it is."""
        headers: Headers = scope["headers"]
        request = self._intake.begin(scope["path_params"]["source"], scope.get("client"), headers)
        try:
            body = await self._answer(request, scope, receive)
        except Disconnected:
            self._intake.note_disconnect(request)
        except IngestError as error:
            response = self._intake.refuse(request, error)
            await self._send_refusal(request, receive, send, error, response)
        except Exception as error:
            await _send(send, request, self._intake.fail(error, request.id))
        else:
            await _send(send, request, Response(HTTPStatus.OK, body))

    async def _answer(self, request: Request, scope: Scope, receive: Receive) -> bytes:
        """Return the body of a 200; every other answer is an exception."""
        source = self._intake.sources.get(request.source)
        if source is None:
            raise UnknownSource("No such source.", reason="unknown_source")
        body = await self._bodies.read(scope, receive, self._intake.body_limit(source))
        decision = decide(request, source, body)
        if isinstance(decision, CostlyBody):
            name = await self._namer.name(source, body)
            decision = decide_named(request, source, body, decision.key_id, name)
        if isinstance(decision, Refusal):
            raise decision.error
        if isinstance(decision, ChallengeAnswer):
            return decision.body
        if isinstance(decision, Rejected):
            await self._intake.writer.append(decision.delivery)
            raise decision.error
        await self._intake.writer.append(decision)
        self._intake.count_answer(request)
        return RECEIVED

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
