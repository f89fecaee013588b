"""Decides what becomes of a request. Pure: no I/O, and no clock of its own."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from ingest import ids
from ingest.errors import InvalidEnvelope, InvalidSignature
from ingest.receiver.costly import is_costly
from ingest.sources.base import Answer, Headers, Source, WebhookRequest
from ingest.sources.identities import Element, NamedBody, NameOrError, name_body
from ingest.store.pipeline.deliveries import Delivery
from ingest.text import storable

_HEADER_VALUE_LIMIT = 500
_PLAIN = re.compile(rb"[ !#-\[\]-~]{0,%d}" % _HEADER_VALUE_LIMIT)
"""Printable ASCII, but for the quote and the backslash, within the limit."""


class Request(NamedTuple):
    """A request to a source's address, without its body. A frozen dataclass would take 1 µs."""

    id: UUID
    """The answer carries it; a delivery that is stored has it too."""
    received_at: float
    """Unix time in seconds."""
    source: str
    """The slug in the address, of a source or not."""
    client: tuple[str, int] | None
    headers: Headers
    target: str
    """The path and the query, as sent."""
    method: str = "POST"

    def to_source(self, body: bytes) -> WebhookRequest:
        """Return what a source is given of the request and its body."""
        return WebhookRequest(self.method, self.target, self.headers, body)


@dataclass(frozen=True, slots=True)
class Rejected:
    """The request is signed and no event: it is stored, then refused."""

    delivery: Delivery
    error: InvalidEnvelope


@dataclass(frozen=True, slots=True)
class ChallengeAnswer:
    """The request is a set-up challenge: it is answered 200, and not stored."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Refusal:
    """The request is refused, and not stored."""

    error: InvalidSignature


@dataclass(frozen=True, slots=True)
class CostlyBody:
    """The request is signed, and naming its body may hold the event loop: it is to be named
    elsewhere, for `decide_named`."""

    key_id: str


Named = Delivery | Rejected | ChallengeAnswer
Decision = Named | Refusal | CostlyBody


def decide(request: Request, source: Source, body: bytes) -> Decision:
    """Decide on a whole request. A `Delivery` is stored, then answered 200."""
    received = request.to_source(body)
    try:
        key_id = source.verify(received, now=int(request.received_at))
    except InvalidSignature as error:
        if source.signs_challenges or source.is_signed(request.headers):
            return Refusal(error)
        return decide_challenge(request, source, body) or Refusal(
            InvalidSignature("The signature header is missing.", reason="signature_missing")
        )
    if is_costly(body):
        return CostlyBody(key_id)
    headers = kept_headers(request.headers, source)
    named = name_body(source, body, headers)
    return decide_named(request, source, body, headers, key_id, named)


def decide_named(
    request: Request,
    source: Source,
    body: bytes,
    headers: Headers,
    key_id: str,
    named: NamedBody,
) -> Named:
    """Decide on a request that `key_id` signed, once its body is named; `headers` are those worth
    keeping."""
    received_at = datetime.fromtimestamp(int(request.received_at * 1000) / 1000, UTC)
    kept = _Kept(source.slug, received_at, key_id, _spelled(headers))
    if isinstance(named, list):
        return _whole(request.id, body, kept, named)
    if isinstance(named, InvalidEnvelope):
        answer = source.answer_challenge(request.to_source(body), now=int(request.received_at))
        if answer is not None:
            return ChallengeAnswer(answer)
        return Rejected(_delivery(request.id, body, kept, named), named)
    return _delivery(request.id, body, kept, named)


def decide_challenge(
    request: Request, source: Source, body: bytes
) -> ChallengeAnswer | Refusal | None:
    """Decide on a request that can only be a challenge. None: the source does not answer it."""
    received, now = request.to_source(body), int(request.received_at)
    try:
        if source.signs_challenges:
            source.verify(received, now=now)
        answer = source.answer_challenge(received, now=now)
    except InvalidSignature as error:
        return Refusal(error)
    return None if answer is None else ChallengeAnswer(answer)


def kept_headers(headers: Headers, source: Source) -> Headers:
    """Return the headers worth keeping."""
    return [header for header in headers if header[0] in source.kept_headers]


class _Kept(NamedTuple):
    """What is stored beside a body. Elements have it from their delivery."""

    source: str
    received_at: datetime
    key_id: str
    headers: str


def _delivery(
    identity: UUID,
    body: bytes,
    kept: _Kept,
    name: NameOrError | None,
    elements: tuple[Delivery, ...] = (),
) -> Delivery:
    rejected = name.reason if isinstance(name, InvalidEnvelope) else None
    return Delivery(
        id=identity,
        source=kept.source,
        received_at=kept.received_at,
        key_id=kept.key_id,
        headers=kept.headers,
        body=body,
        name=None if isinstance(name, InvalidEnvelope) else name,
        rejected=rejected,
        elements=elements,
    )


def _whole(identity: UUID, body: bytes, kept: _Kept, elements: Sequence[Element]) -> Delivery:
    """Return a delivery of several events, which is kept as it came, with its elements."""
    parts = tuple(
        _delivery(ids.element_id(identity, position), element.body, kept, element.name)
        for position, element in enumerate(elements)
    )
    return _delivery(identity, body, kept, None, parts)


def _spelled(headers: Headers) -> str:
    """Return headers as JSON. Without anything to escape, which is usual, they are joined by hand:
    a third of the encoder's time."""
    if all(_PLAIN.fullmatch(value) for _, value in headers):
        pairs = b", ".join([b'["%b", "%b"]' % header for header in headers])
        return f"[{pairs.decode('ascii')}]"
    return json.dumps(
        [
            [name.decode("latin-1"), storable(value.decode("latin-1"), limit=_HEADER_VALUE_LIMIT)]
            for name, value in headers
        ]
    )
