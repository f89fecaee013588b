"""Twilio: how it signs the address with the form, and names what it tells of."""

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from ingest import setting_values, strict_json
from ingest.errors import InvalidSignature
from ingest.sources.base import (
    Answer,
    CannotSign,
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
from ingest.sources.bodies import json_object, refuse
from ingest.sources.signatures import (
    MAX_UNVERIFIED_BYTES,
    key_id,
    matching_key,
    only_header,
)
from ingest.sources.titles import Title
from ingest.sources.twilio import form, samples, titles

SIGNATURE_HEADER = "X-Twilio-Signature"

_SIGNATURE = SIGNATURE_HEADER.lower().encode()
_SIGNATURE_FORM = re.compile(rb"([A-Za-z0-9+/]{27}|[A-Za-z0-9+/]{43})=?")
# Of requests that are signed with a shared key: `key=…,algorithm=HMAC_SHA256`. The grammar is that
# of twilio/request_validator.py in Twilio's library for Python, 9.13.0.
_SIGNATURE_SETTINGS = b"x-twilio-webhooks-signature-settings"
_ALGORITHMS = {b"HMAC_SHA1": "sha1", b"HMAC_SHA256": "sha256"}
_BODY_HASH = "bodySHA256"
_MOST_PARAMETERS = 100
_PORTS = {"http": 80, "https": 443}
_VOICE = "voice"
_IN_PROGRESS = "in-progress"
_STATUS_CALLBACK = "call-progress-events"
"""The `CallbackSource` of every status callback of a call, and of nothing else."""
_OTHER = "request"

# What an event is of, the fields with its sid, and those with its status. It is not `message`: the
# read model takes every `message.received` for one of its own.
_KINDS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("messaging", ("MessageSid", "SmsSid"), ("MessageStatus", "SmsStatus")),
    ("recording", ("RecordingSid",), ("RecordingStatus",)),
    ("transcription", ("TranscriptionSid",), ("TranscriptionStatus",)),
    (_VOICE, ("CallSid",), ("CallStatus",)),
)


class TwilioSettings(SourceSettings):
    """The settings of this source."""

    public_url: SecretStr | None = Field(
        None,
        validate_default=True,
        description="the address that is set at Twilio, with its path and without its query: Twilio"
        " signs it",
    )

    @field_validator("public_url", mode="before")
    @classmethod
    def _usable(cls, value: object, info: ValidationInfo) -> object:
        if value is None and info.data.get("secrets"):
            raise ValueError("must be set: Twilio signs the address that it posts to")
        if isinstance(value, str) and (
            not setting_values.is_web_address(value) or "?" in value or "#" in value
        ):
            raise ValueError("must be an address of the form https://HOST/PATH, without a query")
        return value


class Twilio(Source):
    """The source `twilio`."""

    slug = "twilio"
    title = "Twilio"
    settings = TwilioSettings
    issues_secrets = True
    kept_headers = frozenset(
        {
            *(b"content-type", b"user-agent", b"i-twilio-idempotency-token"),
            *(_SIGNATURE, _SIGNATURE_SETTINGS),
        }
    )
    # Once more after a failed connection, whatever the answer was otherwise.
    retries = Retries(waits_s=(1.0,), final=frozenset(range(100, 600)))
    samples = Samples(types=samples.TYPES, make=samples.make)
    persons = tuple(
        FieldPath(path=name)
        for name in (
            *("From", "To", "Caller", "Called", "WaId", "ProfileName"),
            *("ExternalUserId", "ParentExternalUserId"),
        )
    )
    success = Answer(b"<Response/>", b"text/xml")

    def __init__(self, settings: SourceSettings) -> None:
        """Verify with any of the auth tokens, at the public address."""
        super().__init__(settings)
        self._keys = tuple((key_id(secret, self.slug), secret.encode()) for secret in self.secrets)
        public = settings.public_url if isinstance(settings, TwilioSettings) else None
        self._addresses = () if public is None else _addresses(public.get_secret_value())

    @property
    def key_ids(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._keys)

    def is_signed(self, headers: Headers) -> bool:
        return any(name == _SIGNATURE for name, _ in headers)

    def verify(self, request: WebhookRequest, *, now: int) -> str:
        signature = only_header(request.headers, _SIGNATURE, _SIGNATURE_FORM, "signature").group(1)
        algorithm = _algorithm(request.headers)
        query = request.target.partition("?")[2]
        body_hash = _body_hash(query)
        text = _signed_form(request.body) if body_hash is None else ""
        signed = [f"{address}{query and '?'}{query}{text}".encode() for address in self._addresses]
        matched = matching_key(
            self._keys,
            b64decode(signature + b"="),
            lambda key: [hmac.digest(key, content, algorithm) for content in signed],
        )
        if body_hash is not None:
            _check_hash(body_hash, request.body)
        return matched[0]

    def sign(self, body: bytes, *, now: int) -> Mapping[str, str]:
        secret = self.newest_secret()
        if not self._addresses:
            raise CannotSign(
                f"No address to sign: set {self.variable('public_url')}.", reason="no_public_url"
            )
        signed = f"{self._addresses[0]}{_signed_form(body)}".encode()
        signature = b64encode(hmac.digest(secret.encode(), signed, "sha1")).decode()
        return {
            "Content-Type": "application/x-www-form-urlencoded",
            SIGNATURE_HEADER: signature,
        }

    def parse(self, body: bytes) -> Envelope:
        fields = _fields(body)
        _, event_type, _ = _named(fields)
        return Envelope(
            type=event_type,
            occurred_at=form.read_time(fields.get("Timestamp")),
            data=fields,
            fields=fields,
        )

    def identify(self, envelope: Envelope, headers: Headers = ()) -> EventIdentity:
        kind, event_type, parts = _named(envelope.fields)
        content = hashlib.sha256(strict_json.canonical(envelope.fields))
        if parts:
            event_id = join_event_id(kind, *parts)
        else:
            event_id = join_event_id(event_type, content.hexdigest(), mark="#")
        if kind == _VOICE and parts and not _is_told_once(envelope.fields):
            event_id = join_event_id(kind, *parts, content.hexdigest())
        return EventIdentity(
            event_id=event_id, type=column_type(event_type), fingerprint=content.digest()
        )

    def title_event(self, envelope: Envelope) -> Title | None:
        kind, _, _ = _named(envelope.fields)
        return titles.of_event(kind, envelope) or super().title_event(envelope)


def _algorithm(headers: Headers) -> str:
    """Return the hash function that the request says it is signed with. It is only one that a
    signature with one of our secrets proves."""
    settings = [value for name, value in headers if name == _SIGNATURE_SETTINGS]
    parts = [part.strip() for value in settings for part in value.split(b",")]
    named = [part.removeprefix(b"algorithm=") for part in parts if part.startswith(b"algorithm=")]
    if len(settings) > 1 or len(named) > 1 or not {*named} <= {*_ALGORITHMS}:
        raise InvalidSignature("The algorithm is unknown.", reason="algorithm_unknown")
    return _ALGORITHMS[named[0]] if named else "sha1"


def _addresses(public_url: str) -> tuple[str, ...]:
    """Return the spellings of the address that Twilio may have signed: as it is set, and with and
    without its port or the standard one."""
    parts = urlsplit(public_url)
    userinfo, at, host = parts.netloc.rpartition("@")
    bare = re.sub(r":[0-9]*$", "", host)
    port = parts.port or _PORTS[parts.scheme]
    spellings = (f"{userinfo}{at}{bare}", f"{userinfo}{at}{bare}:{port}")
    return tuple(dict.fromkeys((public_url, *(_at(parts, netloc) for netloc in spellings))))


def _at(parts: SplitResult, netloc: str) -> str:
    return f"{parts.scheme}://{netloc}{parts.path}"


def _body_hash(query: str) -> str | None:
    """Return the hash of the body that the address names; None: the form is signed."""
    try:
        hashes = parse_qs(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise InvalidSignature("The query is too long.", reason="query_too_long") from None
    return hashes[_BODY_HASH][0] if _BODY_HASH in hashes else None


def _check_hash(body_hash: str, body: bytes) -> None:
    digest = hashlib.sha256(body).hexdigest()
    if not hmac.compare_digest(body_hash.lower().encode(), digest.encode()):
        raise InvalidSignature("The body is another one.", reason="body_hash_mismatch")


def _signed_form(body: bytes) -> str:
    """Return what is signed of a form. Nobody knows yet who sends it."""
    if len(body) > MAX_UNVERIFIED_BYTES:
        raise InvalidSignature(
            f"The form has more than {MAX_UNVERIFIED_BYTES} bytes.", reason="form_too_long"
        )
    try:
        return form.signed_text(form.pairs(body))
    except ValueError:
        raise InvalidSignature("The form is malformed.", reason="form_malformed") from None


def _fields(body: bytes) -> dict[str, Any]:
    """Return the fields of a form or of a JSON object. No form of Twilio begins with a brace."""
    if not body.lstrip().startswith((b"{", b"[")):
        try:
            fields = form.as_object(form.pairs(body))
        except ValueError:
            refuse("body_not_form", "the body is not a form")
        if not fields:
            refuse("body_empty", "the form is empty")
        return fields
    return json_object(body)


def _named(fields: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    """Return what an event is of, its type, and its sid and status, if it is named by them.

    A message that was read is told with an `EventType` beside them (`READ`).
    """
    for kind, sids, statuses in _KINDS:
        sid, status = _first(fields, sids), _first(fields, statuses)
        if sid is not None and status is not None:
            return kind, f"{kind}.{status}", [sid, status]
    event_type = _first(fields, ("EventType",))
    if event_type is not None:
        return event_type, event_type, []
    kinds = (kind for kind, sids, _ in _KINDS if _first(fields, sids) is not None)
    kind = next(kinds, _OTHER)
    return kind, kind, []


def _is_told_once(fields: Mapping[str, Any]) -> bool:
    """Return whether a request tells that a call has come to its status, which happens once.

    Each step of a call is told with the status that the call has: while it goes on with
    `in-progress`, and the recording of a caller who hangs up with `completed`.
    """
    is_callback = fields.get("CallbackSource") == _STATUS_CALLBACK
    return is_callback and fields.get("CallStatus") != _IN_PROGRESS


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    values = (fields.get(name) for name in names)
    return next((value for value in values if isinstance(value, str) and value), None)
