"""A small source from outside: how a plugin is written, and what the tests plug in.

It signs as GitHub does: no timestamp, HMAC-SHA256 over the body, `sha256=` before the digest.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from random import Random

from ingest import strict_json
from ingest.errors import InvalidEnvelope, InvalidSignature
from ingest.sources.base import (
    Envelope,
    EventIdentity,
    FieldPath,
    Headers,
    Samples,
    Source,
    WebhookRequest,
    column_type,
    join_event_id,
)

_SIGNATURE = b"x-ledger-signature"


def _make(event_type: str, random: Random, now: datetime) -> bytes:
    entry = {"kind": event_type, "number": random.randrange(10**9), "at": now.isoformat()}
    return json.dumps(entry).encode()


class Ledger(Source):
    """The source `ledger`."""

    slug = "ledger"
    title = "Ledger"
    kept_headers = frozenset({_SIGNATURE})
    body_limit = 2 * 1024 * 1024
    samples = Samples(types=("entry.posted", "entry.voided"), make=_make)
    entities = {"order": (FieldPath(path="number"),)}  # noqa: RUF012 - as short as it can be

    @property
    def key_ids(self) -> tuple[str, ...]:
        return tuple(hashlib.sha256(secret.encode()).hexdigest()[:8] for secret in self.secrets)

    def is_signed(self, headers: Headers) -> bool:
        return any(name == _SIGNATURE for name, _ in headers)

    def verify(self, request: WebhookRequest, *, now: int) -> str:
        signatures = [value for name, value in request.headers if name == _SIGNATURE]
        for secret, key_id in zip(self.secrets, self.key_ids, strict=True):
            expected = f"sha256={_digest(secret, request.body)}".encode()
            if len(signatures) == 1 and hmac.compare_digest(signatures[0], expected):
                return key_id
        raise InvalidSignature("The signature does not match.", reason="signature_mismatch")

    def sign(self, body: bytes, *, now: int) -> Mapping[str, str]:
        signature = f"sha256={_digest(self.newest_secret(), body)}"
        return {"Content-Type": "application/json", "X-Ledger-Signature": signature}

    def split(self, body: bytes) -> Sequence[bytes] | None:
        """Entries may come together: `{"entries": [...]}`."""
        try:
            batch = strict_json.loads(body)
        except strict_json.InvalidJson:
            return None
        if not isinstance(batch, dict) or not isinstance(batch.get("entries"), list):
            return None
        return [strict_json.canonical(entry) for entry in batch["entries"]]

    def parse(self, body: bytes) -> Envelope:
        try:
            entry = strict_json.loads(body)
        except strict_json.InvalidJson as error:
            raise InvalidEnvelope(f"Signed, but {error}.", reason="body_not_json") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
            raise InvalidEnvelope("Signed, but `kind` is missing.", reason="kind_missing")
        return Envelope(type=entry["kind"], occurred_at=None, data=entry, fields=entry)

    def identify(self, envelope: Envelope, headers: Headers = ()) -> EventIdentity:
        return EventIdentity(
            event_id=join_event_id(envelope.type, str(envelope.data.get("number"))),
            type=column_type(envelope.type),
            fingerprint=hashlib.sha256(strict_json.canonical(envelope.data)).digest(),
        )


def _digest(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
