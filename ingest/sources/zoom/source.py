"""Zoom: how it signs, and how it validates an address."""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime
from random import Random

from ingest import strict_json
from ingest.errors import InvalidSignature
from ingest.sources.base import (
    Answer,
    Envelope,
    EventIdentity,
    FieldPath,
    Headers,
    Retries,
    Samples,
    Source,
    SourceSettings,
    WebhookRequest,
    column_type,
    join_event_id,
)
from ingest.sources.bodies import json_object, lookup, refuse
from ingest.sources.signatures import SHA256_HEX, Key, key_id, matching_key, only_header
from ingest.sources.titles import Title, private, shown, title, verb, words
from ingest.timestamps import parse_timestamp

SIGNATURE_HEADER = "x-zm-signature"
TIMESTAMP_HEADER = "x-zm-request-timestamp"
VALIDATION = "endpoint.url_validation"

_SIGNATURE, _TIMESTAMP = SIGNATURE_HEADER.encode(), TIMESTAMP_HEADER.encode()
_SIGNATURE_FORM = re.compile(rb"v0=(" + SHA256_HEX + rb")")
_TIMESTAMP_FORM = re.compile(rb"[0-9]{1,12}")
_CHALLENGE_LIMIT = 4096
_PLAIN_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,256}")
"""Without the colon: the answer is a digest with our secret, and must never be one of what is
signed (`v0:…`)."""

_TYPES = (
    *("meeting.started", "meeting.ended", "meeting.participant_joined"),
    *("recording.completed", "webinar.started"),
)


def _make(event_type: str, random: Random, now: datetime) -> bytes:
    meeting = {"id": str(random.randrange(10**10)), "topic": "Weekly", "host_id": "x1yCzABCDEfg23"}
    payload = {"account_id": "AAAAAABBBB", "object": meeting}
    stamp = int(now.timestamp() * 1000)
    return json.dumps({"event": event_type, "event_ts": stamp, "payload": payload}).encode()


class Zoom(Source):
    """The source `zoom`."""

    slug = "zoom"
    title = "Zoom"
    issues_secrets = True
    signs_challenges = True
    kept_headers = frozenset({b"content-type", b"user-agent", _SIGNATURE, _TIMESTAMP})
    # https://developers.zoom.us/blog/webhook-delays: only 200 and 204 are a success; after 5
    # minutes, 20 more and 60 more it is sent again.
    retries = Retries(waits_s=(300.0, 1_200.0, 3_600.0), final=frozenset({200, 204}))
    samples = Samples(types=_TYPES, make=_make)
    persons = tuple(
        FieldPath(path=f"payload.object.{name}")
        for name in ("host_id", "participant.user_name", "participant.email", "participant.user_id")
    )

    def __init__(self, settings: SourceSettings) -> None:
        """Verify with any of the secret tokens, within `tolerance_s` seconds either way."""
        super().__init__(settings)
        self._keys = tuple((key_id(secret, self.slug), secret.encode()) for secret in self.secrets)

    @property
    def key_ids(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._keys)

    def is_signed(self, headers: Headers) -> bool:
        return any(name in (_SIGNATURE, _TIMESTAMP) for name, _ in headers)

    def verify(self, request: WebhookRequest, *, now: int) -> str:
        return self._verified(request, now)[0]

    def _verified(self, request: WebhookRequest, now: int) -> Key:
        """Return the key that signed the request. Raise InvalidSignature if there is none."""
        timestamp = only_header(request.headers, _TIMESTAMP, _TIMESTAMP_FORM, "timestamp").group()
        signature = only_header(request.headers, _SIGNATURE, _SIGNATURE_FORM, "signature").group(1)
        matched = matching_key(
            self._keys,
            bytes.fromhex(signature.decode()),
            lambda key: [_digest(key, timestamp, request.body)],
        )
        if abs(now - int(timestamp)) > self.tolerance_s:
            raise InvalidSignature(
                f"The timestamp is more than {self.tolerance_s} seconds away from now.",
                reason="timestamp_outside_window",
            )
        return matched

    def sign(self, body: bytes, *, now: int) -> Mapping[str, str]:
        digest = _digest(self.newest_secret().encode(), str(now).encode(), body)
        return {
            "Content-Type": "application/json",
            TIMESTAMP_HEADER: str(now),
            SIGNATURE_HEADER: f"v0={digest.hex()}",
        }

    def answer_challenge(self, request: WebhookRequest, *, now: int) -> Answer | None:
        """Answer with the digest of the token that Zoom sent, by the secret that Zoom signed with.

        Of an unsigned challenge the answer would sign whatever a stranger likes."""
        if request.method != "POST" or len(request.body) > _CHALLENGE_LIMIT:
            return None
        try:
            fields = strict_json.loads(request.body)
        except strict_json.InvalidJson:
            return None
        if not isinstance(fields, dict) or fields.get("event") != VALIDATION:
            return None
        payload = fields.get("payload")
        token = payload.get("plainToken") if isinstance(payload, dict) else None
        if not isinstance(token, str) or not _PLAIN_TOKEN.fullmatch(token):
            return None
        _, key = self._verified(request, now)
        encrypted = hmac.digest(key, token.encode(), "sha256").hex()
        return Answer(json.dumps({"plainToken": token, "encryptedToken": encrypted}).encode())

    def parse(self, body: bytes) -> Envelope:
        fields = json_object(body)
        event_type, payload = fields.get("event"), fields.get("payload")
        if not isinstance(event_type, str) or not event_type:
            refuse("event_not_string", "`event` is not a string")
        if event_type == VALIDATION:
            refuse("validation_malformed", "it is a validation without a usable `plainToken`")
        if not isinstance(payload, dict):
            refuse("payload_not_object", "`payload` is not an object")
        return Envelope(
            type=event_type,
            occurred_at=parse_timestamp(fields.get("event_ts")),
            data=payload,
            fields=fields,
        )

    def identify(self, envelope: Envelope, headers: Headers = ()) -> EventIdentity:
        content = hashlib.sha256(strict_json.canonical(envelope.fields))
        return EventIdentity(
            event_id=join_event_id(envelope.type, content.hexdigest(), mark="#"),
            type=column_type(envelope.type),
            fingerprint=content.digest(),
        )

    def title_event(self, envelope: Envelope) -> Title | None:
        kind = words(envelope.type.partition(".")[0])
        done = (f"{kind} ", shown(lookup(envelope.data, "object.id")), f" {verb(envelope.type)}")
        named = ("object.participant.user_name", "object.topic")
        names = filter(None, (private(lookup(envelope.data, path)) for path in named))
        whole = title(*done, ": ", next(names, None)) or title(*done)
        return whole or super().title_event(envelope)


def _digest(key: bytes, timestamp: bytes, body: bytes) -> bytes:
    return hmac.digest(key, b"v0:" + timestamp + b":" + body, "sha256")
