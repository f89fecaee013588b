"""Decides what becomes of a request. Pure: no I/O, and no clock of its own."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from ingest.errors import InvalidEnvelope, InvalidSignature
from ingest.receiver.identities import NameOrError, is_costly, name_body
from ingest.sources.base import EventIdentity, Headers, Source
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


@dataclass(frozen=True, slots=True)
class Rejected:
    """The request is signed and no event: it is stored, then refused."""

    delivery: Delivery
    error: InvalidEnvelope


@dataclass(frozen=True, slots=True)
class ChallengeAnswer:
    """The request is a set-up handshake: it is answered 200 with this body, and not stored."""

    body: bytes


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
    try:
        key_id = source.verify(request.headers, body, now=int(request.received_at))
    except InvalidSignature as error:
        if source.is_signed(request.headers):
            return Refusal(error)
        return answer_challenge(source, body)
    if is_costly(body):
        return CostlyBody(key_id)
    return decide_named(request, source, body, key_id, name_body(source, body))


def decide_named(
    request: Request, source: Source, body: bytes, key_id: str, name: NameOrError
) -> Named:
    """Decide on a request that `key_id` signed, once its body is named."""
    if isinstance(name, EventIdentity):
        return _delivery(request, source, body, key_id, name, rejected=None)
    answer = source.answer_challenge(body)
    if answer is not None:
        return ChallengeAnswer(answer)
    delivery = _delivery(request, source, body, key_id, None, rejected=name.reason)
    return Rejected(delivery, name)


def answer_challenge(source: Source, body: bytes) -> ChallengeAnswer | Refusal:
    """Decide on a request without a signature: only a handshake needs none."""
    answer = source.answer_challenge(body)
    if answer is not None:
        return ChallengeAnswer(answer)
    return Refusal(InvalidSignature("The signature header is missing.", reason="signature_missing"))


def _delivery(
    request: Request,
    source: Source,
    body: bytes,
    key_id: str,
    name: EventIdentity | None,
    rejected: str | None,
) -> Delivery:
    return Delivery(
        id=request.id,
        source=source.slug,
        received_at=datetime.fromtimestamp(int(request.received_at * 1000) / 1000, UTC),
        key_id=key_id,
        headers=_kept_headers(request.headers, source),
        body=body,
        name=name,
        rejected=rejected,
    )


def _kept_headers(headers: Headers, source: Source) -> str:
    """Return the headers worth keeping, as JSON. Without anything to escape, which is usual, they
    are joined by hand: a third of the encoder's time."""
    kept = [(name, value) for name, value in headers if name in source.kept_headers]
    if all(_PLAIN.fullmatch(value) for _, value in kept):
        pairs = b", ".join([b'["%b", "%b"]' % header for header in kept])
        return f"[{pairs.decode('ascii')}]"
    return json.dumps(
        [
            [name.decode("latin-1"), storable(value.decode("latin-1"), limit=_HEADER_VALUE_LIMIT)]
            for name, value in kept
        ]
    )
