"""Meta's WhatsApp Cloud API: how it signs, shakes hands, batches and names its updates."""

import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from random import Random
from types import MappingProxyType
from urllib.parse import parse_qs

from pydantic import Field, SecretStr

from ingest.errors import InvalidSignature
from ingest.sources import verify_tokens
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
    join_event_id,
)
from ingest.sources.bodies import json_object
from ingest.sources.signatures import SHA256_HEX, key_id, matching_key, only_header
from ingest.sources.titles import Title
from ingest.sources.verify_tokens import VerifyTokenSettings
from ingest.sources.whatsapp import samples, splitting, titles
from ingest.sources.whatsapp.business import Business
from ingest.sources.whatsapp.updates import only_update
from ingest.timestamps import parse_timestamp

SIGNATURE_HEADER = "X-Hub-Signature-256"

_SIGNATURE = SIGNATURE_HEADER.lower().encode()
_SIGNATURE_FORM = re.compile(rb"sha256=(" + SHA256_HEX + rb")")
_CHALLENGE_LIMIT = 1024
_MOST_PARAMETERS = 20
_VALUE = "entry.0.changes.0.value"


class WhatsAppSettings(VerifyTokenSettings):
    """The settings of this source."""

    verify_token: SecretStr | None = Field(
        None,
        description="what Meta's `hub.verify_token` must be when it checks the address;"
        " unset: no such check is answered",
    )


class WhatsApp(Source):
    """The source `whatsapp`."""

    slug = "whatsapp"
    title = "Meta WhatsApp Cloud API"
    settings = WhatsAppSettings
    issues_secrets = True
    sends_batches = True
    read_model = "whatsapp"
    kept_headers = frozenset({b"content-type", b"content-encoding", b"user-agent", _SIGNATURE})
    body_limit = 3 * 1024 * 1024
    # At once, then less and less often for 7 days; only 200 is a success. Meta does not say when:
    # the waits between are ours.
    retries = Retries(
        waits_s=(
            *(1.0, 60.0, 300.0, 1_800.0, 7_200.0, 21_600.0),
            *(43_200.0, 86_400.0, 172_800.0, 259_200.0),
        ),
        final=frozenset({200}),
    )
    samples = Samples(types=samples.types(), make=samples.make, documented=samples.DOCUMENTED)
    entities = MappingProxyType(
        {
            "phone": (
                FieldPath(path=f"{_VALUE}.messages.0.from", types="messages.*"),
                FieldPath(path=f"{_VALUE}.statuses.0.recipient_id", types="statuses.*"),
                FieldPath(path=f"{_VALUE}.user_id_update.0.wa_id", types="user_id_update"),
            ),
            "message": (
                FieldPath(path=f"{_VALUE}.messages.0.id", types="messages.*"),
                FieldPath(path=f"{_VALUE}.statuses.0.id", types="statuses.*"),
            ),
            "contact": (
                FieldPath(path=f"{_VALUE}.messages.0.from_user_id", types="messages.*"),
                FieldPath(path=f"{_VALUE}.messages.0.system.user_id", types="messages.system"),
                FieldPath(path=f"{_VALUE}.statuses.0.recipient_user_id", types="statuses.*"),
                FieldPath(
                    path=f"{_VALUE}.user_id_update.0.user_id.previous", types="user_id_update"
                ),
                FieldPath(
                    path=f"{_VALUE}.user_id_update.0.user_id.current", types="user_id_update"
                ),
            ),
        }
    )
    persons = (
        *entities["phone"],
        *entities["contact"],
        *(
            FieldPath(path=f"{_VALUE}.{path}")
            for path in (
                "contacts.0.wa_id",
                "contacts.0.user_id",
                "contacts.0.parent_user_id",
                "contacts.0.profile.name",
                "contacts.0.profile.username",
                "messages.0.from_parent_user_id",
                "messages.0.system.wa_id",
                "statuses.0.recipient_parent_user_id",
                "statuses.0.recipient_participant_id",
            )
        ),
    )

    def __init__(self, settings: SourceSettings) -> None:
        """Verify with any of the app secrets. Challenges are answered if there is a token."""
        super().__init__(settings)
        self._keys = tuple((key_id(secret, self.slug), secret.encode()) for secret in self.secrets)

    @property
    def key_ids(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._keys)

    def is_signed(self, headers: Headers) -> bool:
        return any(name == _SIGNATURE for name, _ in headers)

    def verify(self, request: WebhookRequest, *, now: int) -> str:
        signature = only_header(request.headers, _SIGNATURE, _SIGNATURE_FORM, "signature").group(1)
        return matching_key(
            self._keys,
            bytes.fromhex(signature.decode()),
            lambda key: [hmac.digest(key, request.body, "sha256")],
        )[0]

    def sign(self, body: bytes, *, now: int) -> Mapping[str, str]:
        digest = hmac.digest(self.newest_secret().encode(), body, "sha256")
        return {
            "Content-Type": "application/json",
            SIGNATURE_HEADER: f"sha256={digest.hex()}",
        }

    def answer_challenge(self, request: WebhookRequest, *, now: int) -> Answer | None:
        if request.method != "GET":
            return None
        parameters = _parameters(request.target)
        if not any(name.startswith("hub.") for name in parameters):
            return None
        tokens = parameters.get("hub.verify_token", [])
        verify_tokens.check(tokens, self._settings, self.variable("verify_token"))
        challenge = parameters.get("hub.challenge", [])
        if (
            parameters.get("hub.mode") != ["subscribe"]
            or len(challenge) != 1
            or not 0 < len(challenge[0]) <= _CHALLENGE_LIMIT
        ):
            raise InvalidSignature("The challenge is malformed.", reason="challenge_malformed")
        return Answer(challenge[0].encode(), b"text/plain; charset=utf-8")

    def split(self, body: bytes) -> Sequence[bytes] | None:
        return splitting.split(body)

    def parse(self, body: bytes) -> Envelope:
        fields = json_object(body)
        update = only_update(fields)
        return Envelope(
            type=update.type,
            occurred_at=parse_timestamp(update.element.get("timestamp"))
            or parse_timestamp(update.entry.get("time")),
            data=fields,
            fields=fields,
        )

    def identify(self, envelope: Envelope, headers: Headers = ()) -> EventIdentity:
        return only_update(envelope.fields).identify()

    def title_event(self, envelope: Envelope) -> Title | None:
        return titles.of_update(only_update(envelope.fields)) or super().title_event(envelope)

    @classmethod
    def event_ids(cls, kind: str, value: str) -> Sequence[str]:
        if kind != "message":
            return ()
        statuses = (join_event_id("statuses", value, status) for status in samples.STATUSES)
        return (join_event_id("messages", value), *statuses)

    @classmethod
    def simulate(cls, random: Random, *, opened_at: datetime) -> Iterator[Occurrence]:
        return Business(random, opened_at=opened_at).occurrences()


def _parameters(target: str) -> dict[str, list[str]]:
    try:
        return parse_qs(
            target.partition("?")[2], keep_blank_values=True, max_num_fields=_MOST_PARAMETERS
        )
    except ValueError:  # too many
        return {}
