"""AwalChat, a WhatsApp Business platform: how it signs, shakes hands and names its events."""

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from random import Random
from types import MappingProxyType
from typing import Any

from ingest import strict_json
from ingest.errors import InvalidSignature
from ingest.sources.awalchat import samples, titles
from ingest.sources.awalchat.shop import Shop
from ingest.sources.base import (
    Answer,
    Envelope,
    EventIdentity,
    FieldPath,
    Headers,
    Occurrence,
    Retries,
    Samples,
    Source,
    SourceSettings,
    WebhookRequest,
    column_type,
    join_event_id,
)
from ingest.sources.bodies import json_object, refuse
from ingest.sources.signatures import key_id, only_header
from ingest.sources.titles import Title
from ingest.timestamps import parse_timestamp

SLUG = "awalchat"
TIMESTAMP_HEADER = "X-Awal-Webhook-Timestamp"
SIGNATURE_HEADER = "X-Awal-Webhook-Signature"

_TIMESTAMP = TIMESTAMP_HEADER.lower().encode()
_SIGNATURE = SIGNATURE_HEADER.lower().encode()
_TIMESTAMP_FORM = re.compile(rb"[0-9]{1,12}")
_WHOLE_NUMBER = re.compile("-?[0-9]{1,19}")
_SIGNATURE_FORM = re.compile(rb"(?:sha256=)?([0-9a-fA-F]{64})")

_HANDSHAKE_LIMIT = 4096
_CHALLENGE_LIMIT = 1024

_LOWER_STATUSES = ("sent", "delivered", "read", "failed", "played", "deleted")
_STATUSES = (*_LOWER_STATUSES, *(status.upper() for status in _LOWER_STATUSES))
# Which fields of `data` tell one occurrence of a type from another. Every other type is named by
# its content.
_NAMING_FIELDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "message.received": (("message_id",),),
    "message.status.updated": (("message_id",), ("status",)),
    "conversation.created": (("conversation_id",),),
    "order.created": (("order_id",),),
    "contact.created": (("contact_id", "id"),),
}
# With one of these, content tells occurrences apart. `created_at` does so for creations only:
# three updates that lead from A to B and back to A share it, and must not become two.
_OWN_TIMESTAMPS = ("updated_at", "timestamp")
_OWN_TIMESTAMPS_OF_CREATION = (*_OWN_TIMESTAMPS, "created_at")


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """Return the signature header's value for `body` sent at `timestamp` (Unix seconds)."""
    return _digest(secret.encode(), str(timestamp).encode(), body).hex()


class AwalChat(Source):
    """The source `awalchat`."""

    slug = SLUG
    title = "AwalChat"
    read_model = "shop"
    kept_headers = frozenset(
        {b"content-type", b"content-encoding", b"user-agent", _TIMESTAMP, _SIGNATURE}
    )
    # As documented: after 1 min, 5 min, 15 min, 1 h and 6 h; a 4xx is final.
    retries = Retries(
        waits_s=(60.0, 300.0, 900.0, 3_600.0, 21_600.0), final=frozenset({200, *range(400, 500)})
    )
    samples = Samples(types=samples.types(), make=samples.make, documented=samples.DOCUMENTED)
    entities = MappingProxyType(
        {
            "conversation": (FieldPath(path="data.conversation_id"),),
            "phone": (
                FieldPath(path="data.from"),
                FieldPath(path="data.phone_number"),
                FieldPath(path="data.phone"),
            ),
            "order": (FieldPath(path="data.order_id"),),
            "message": (FieldPath(path="data.message_id"),),
            "contact": (
                FieldPath(path="data.contact_id"),
                FieldPath(path="data.id", types="contact.*"),
            ),
        }
    )
    persons = (*entities["phone"], *entities["contact"])

    def __init__(self, settings: SourceSettings) -> None:
        """Verify with any of the secrets, within `tolerance_s` seconds of now either way."""
        super().__init__(settings)
        self._keys = tuple((key_id(secret, self.slug), secret.encode()) for secret in self.secrets)

    @property
    def key_ids(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._keys)

    def is_signed(self, headers: Headers) -> bool:
        return any(name in (_TIMESTAMP, _SIGNATURE) for name, _ in headers)

    def verify(self, request: WebhookRequest, *, now: int) -> str:
        headers = request.headers
        timestamp = only_header(headers, _TIMESTAMP, _TIMESTAMP_FORM, "timestamp").group()
        signature = only_header(headers, _SIGNATURE, _SIGNATURE_FORM, "signature").group(1)
        matched = self._matching_key(bytes.fromhex(signature.decode()), timestamp, request.body)
        if matched is None:
            raise InvalidSignature("The signature does not match.", reason="signature_mismatch")
        if abs(now - int(timestamp)) > self.tolerance_s:
            raise InvalidSignature(
                f"The timestamp is more than {self.tolerance_s} seconds away from now.",
                reason="timestamp_outside_window",
            )
        return matched

    def _matching_key(self, signature: bytes, timestamp: bytes, body: bytes) -> str | None:
        matched = None
        for (
            name,
            key,
        ) in self._keys:  # every key is tried, so the time taken does not tell which matched
            if hmac.compare_digest(signature, _digest(key, timestamp, body)):
                matched = name
        return matched

    def sign(self, body: bytes, *, now: int) -> Mapping[str, str]:
        return {
            "Content-Type": "application/json",
            TIMESTAMP_HEADER: str(now),
            SIGNATURE_HEADER: sign(self.newest_secret(), now, body),
        }

    def title_event(self, envelope: Envelope) -> Title | None:
        return titles.of_event(envelope.type, envelope.data) or super().title_event(envelope)

    @classmethod
    def event_ids(cls, kind: str, value: str) -> Sequence[str]:
        if kind == "phone":
            return ()
        if kind != "message":
            is_whole = _WHOLE_NUMBER.fullmatch(value) is not None
            return (join_event_id(f"{kind}.created", str(int(value))),) if is_whole else ()
        statuses = (join_event_id("message.status.updated", value, status) for status in _STATUSES)
        return (join_event_id("message.received", value), *statuses)

    @classmethod
    def signed_at(cls, headers: Mapping[str, str]) -> datetime | None:
        stamp = headers.get(TIMESTAMP_HEADER.lower(), "")
        if not _TIMESTAMP_FORM.fullmatch(stamp.encode("ascii", "replace")) or len(stamp) > 11:
            return None
        return datetime.fromtimestamp(int(stamp), UTC)

    @classmethod
    def simulate(cls, random: Random, *, opened_at: datetime) -> Iterator[Occurrence]:
        return Shop(random, opened_at=opened_at).occurrences()

    def answer_challenge(self, request: WebhookRequest, *, now: int) -> Answer | None:
        body = request.body
        if request.method != "POST" or len(body) > _HANDSHAKE_LIMIT:
            return None
        try:
            fields = strict_json.loads(body)
        except strict_json.InvalidJson:
            return None
        if not isinstance(fields, dict) or fields.get("type") != "verification":
            return None
        challenge = fields.get("challenge")
        if not isinstance(challenge, str) or len(challenge) > _CHALLENGE_LIMIT:
            return None
        return Answer(json.dumps({"challenge": challenge}).encode("ascii"))

    def parse(self, body: bytes) -> Envelope:
        fields = json_object(body)
        if fields.get("data") == []:  # PHP's spelling of an object without fields
            fields["data"] = {}
        event_type, data = fields.get("event"), fields.get("data")
        if not isinstance(event_type, str):
            refuse("event_not_string", "`event` is not a string")
        if not isinstance(data, dict):
            refuse("data_not_object", "`data` is not an object")
        return Envelope(
            type=event_type,
            occurred_at=parse_timestamp(fields.get("timestamp")),
            data=data,
            fields=fields,
        )

    def identify(self, envelope: Envelope, headers: Headers = ()) -> EventIdentity:
        # A retry may be stamped anew, so the envelope's own timestamp is no part of the content.
        content = {key: value for key, value in envelope.fields.items() if key != "timestamp"}
        return EventIdentity(
            event_id=_event_id(envelope),
            type=column_type(envelope.type),
            fingerprint=hashlib.sha256(strict_json.canonical(content)).digest(),
        )


def _event_id(envelope: Envelope) -> str:
    """Return the id by the protocol's three rules, in their order. A mark keeps the ids of
    different rules apart."""
    fields = envelope.fields
    for field in ("id", "event_id"):
        identifier = _identifier(fields[field]) if field in fields else None
        if identifier is not None:
            return join_event_id(envelope.type, identifier, mark="@")
    parts = _naming_parts(envelope)
    if parts is not None:
        return join_event_id(envelope.type, *parts)
    return _content_id(envelope)


def _naming_parts(envelope: Envelope) -> list[str] | None:
    naming = _NAMING_FIELDS.get(envelope.type)
    if naming is None:
        return None
    parts = []
    for alternatives in naming:
        for field in alternatives:
            part = _identifier(envelope.data.get(field))
            if part is not None:
                parts.append(part)
                break
        else:
            return None
    return parts


def _content_id(envelope: Envelope) -> str:
    content: Any = envelope.data
    is_creation = envelope.type.endswith(".created")
    own = _OWN_TIMESTAMPS_OF_CREATION if is_creation else _OWN_TIMESTAMPS
    if all(envelope.data.get(field) is None for field in own):
        content = [envelope.data, envelope.fields.get("timestamp")]
    digest = hashlib.sha256(strict_json.canonical(content)).hexdigest()
    return join_event_id(envelope.type, digest, mark="#")


def _identifier(value: object) -> str | None:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def _digest(key: bytes, timestamp: bytes, body: bytes) -> bytes:
    return hmac.digest(key, timestamp + b"." + body, "sha256")
