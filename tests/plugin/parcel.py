"""A source from outside that needs all of a request: it signs the method and the address with the
body, names events in headers, answers a computed challenge to `GET`, and wants no JSON in return.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from random import Random
from urllib.parse import parse_qs, urlsplit

from ingest import strict_json
from ingest.errors import InvalidEnvelope, InvalidSignature
from ingest.sources.base import (
    Answer,
    Envelope,
    EventIdentity,
    Headers,
    Samples,
    Source,
    WebhookRequest,
    column_type,
    join_event_id,
)

_SIGNATURE, _ID, _TYPE = b"x-parcel-signature", b"x-parcel-id", b"x-parcel-event"


def _make(_event_type: str, random: Random, _now: datetime) -> bytes:
    return b'{"parcel": %d}' % random.randrange(10**9)


class Parcel(Source):
    """The source `parcel`."""

    slug = "parcel"
    title = "Parcel"
    kept_headers = frozenset({_SIGNATURE, _ID, _TYPE})
    samples = Samples(types=("parcel.sent",), make=_make)
    success = Answer(b"thanks", b"text/plain")

    @property
    def key_ids(self) -> tuple[str, ...]:
        return tuple(hashlib.sha256(secret.encode()).hexdigest()[:8] for secret in self.secrets)

    def is_signed(self, headers: Headers) -> bool:
        return _value(headers, _SIGNATURE) is not None

    def verify(self, request: WebhookRequest, *, now: int) -> str:
        signature = _value(request.headers, _SIGNATURE)
        for secret, key_id in zip(self.secrets, self.key_ids, strict=True):
            expected = _digest(secret, request.method, request.target, request.body).encode()
            if signature is not None and hmac.compare_digest(signature, expected):
                return key_id
        raise InvalidSignature("The signature does not match.", reason="signature_mismatch")

    def sign(self, body: bytes, *, now: int) -> Mapping[str, str]:
        target = f"/webhooks/{self.slug}"
        return {
            "X-Parcel-Signature": _digest(self.newest_secret(), "POST", target, body),
            "X-Parcel-Id": hashlib.sha256(body).hexdigest()[:16],
            "X-Parcel-Event": self.samples.types[0],
        }

    def answer_challenge(self, request: WebhookRequest, *, now: int) -> Answer | None:
        tokens = parse_qs(urlsplit(request.target).query).get("token")
        if request.method != "GET" or not tokens or not self.secrets:
            return None
        digest = hmac.new(self.secrets[0].encode(), tokens[0].encode(), hashlib.sha256)
        return Answer(digest.hexdigest().encode(), b"text/plain")

    def parse(self, body: bytes) -> Envelope:
        try:
            fields = strict_json.loads(body)
        except strict_json.InvalidJson as error:
            raise InvalidEnvelope(f"Signed, but {error}.", reason="body_not_json") from None
        if not isinstance(fields, dict):
            raise InvalidEnvelope("Signed, but no object.", reason="body_not_object")
        return Envelope(type="", occurred_at=None, data=fields, fields=fields)

    def identify(self, envelope: Envelope, headers: Headers = ()) -> EventIdentity:
        event_type, event_id = _value(headers, _TYPE), _value(headers, _ID)
        if not event_type or not event_id:
            raise InvalidEnvelope("Signed, but not named.", reason="headers_missing")
        return EventIdentity(
            event_id=join_event_id(event_type.decode("latin-1"), event_id.decode("latin-1")),
            type=column_type(event_type.decode("latin-1")),
            fingerprint=hashlib.sha256(strict_json.canonical(envelope.data)).digest(),
        )


def _value(headers: Headers, name: bytes) -> bytes | None:
    return next((value for header, value in headers if header == name), None)


def _digest(secret: str, method: str, target: str, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{method} {target}\n".encode() + body, "sha256").hexdigest()
