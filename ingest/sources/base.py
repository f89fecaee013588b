"""What a source is: the class that a sender's plugin derives, and the values that it exchanges with
the pipeline.

It is over 400 lines because a plugin's author reads, and imports, all of it from one place."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from ingest import setting_values
from ingest.errors import IngestError
from ingest.recovery.base import Recovery
from ingest.sources import titles
from ingest.sources.titles import Title
from ingest.text import is_storable, storable

Headers = Sequence[tuple[bytes, bytes]]
"""Request headers as ASGI gives them: lower-case names, values as received, repeats kept."""


class WebhookRequest(NamedTuple):
    """A request to a source's address, as received. (A frozen dataclass takes 1 µs to make.)"""

    method: str
    """`POST`; `GET` for the challenges of some senders."""
    target: str
    """The path and the query, as sent."""
    headers: Headers
    body: bytes


class Answer(NamedTuple):
    """The body of an answer with the status 200."""

    body: bytes
    content_type: bytes = b"application/json"


TYPE_LIMIT = 200
MIN_SECRET_LENGTH = 16
_PART_LIMIT = 200


class Envelope(NamedTuple):
    """A signed body that is an event: its type, when it occurred if it says so, and its data."""

    type: str
    occurred_at: datetime | None
    data: dict[str, Any]
    fields: dict[str, Any]
    """The whole parsed body; `data` is one of its fields."""


class EventIdentity(NamedTuple):
    """What dedupe needs: the event id (unique within the source) and a fingerprint of the
    content."""

    event_id: str
    type: str
    fingerprint: bytes
    """SHA-256 over what must not differ between two deliveries of one event."""


class CannotSign(IngestError):
    """There is no secret to sign a request with."""


class NoSample(IngestError):
    """There is no sample of an event type, and none can be made."""


class SourceSettings(BaseModel):
    """What every source is told. The variable of `secrets` is `INGEST_{SLUG}_SECRETS`, and so on; a
    source with further settings derives a class of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secrets: tuple[SecretStr, ...] = Field(
        (), description="webhook secrets, newest first, separated by commas or lines"
    )
    tolerance_s: int = Field(
        default=300,
        gt=0,
        lt=2**31,
        description="how far a request's timestamp may be from now, either way, seconds",
    )

    @field_validator("secrets", mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        if isinstance(value, str):
            return setting_values.parse_secrets(value, min_length=MIN_SECRET_LENGTH)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Events to try a pipeline with."""

    types: tuple[str, ...]
    """The documented event types."""
    make: Callable[[str, Random, datetime], bytes]
    """Makes the body of a new event of a type that happened at a time."""
    documented: tuple[bytes, ...] = ()
    """Bodies that the sender's documentation shows."""
    makes_others: bool = True
    """Whether `make` makes events of other types too, with little in them."""

    def check(self, event_type: str) -> None:
        """Raise NoSample if `make` does not make events of a type."""
        if not self.makes_others and event_type not in self.types:
            raise NoSample(
                f"There is no sample of {event_type}: there are {', '.join(self.types)}.",
                reason="bad_type",
            )


class Occurrence(Protocol):
    """Something that happened at a simulated customer of the sender's."""

    @property
    def number(self) -> int:
        """Its place in the simulation, from 0."""

    @property
    def type(self) -> str:
        """Return the event type."""

    def body(self, sent_at: datetime | None = None) -> bytes:
        """Return the request's body, its envelope stamped `sent_at`; None: when it happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """When the sender sends again. The defaults are what Standard Webhooks advises senders."""

    waits_s: tuple[float, ...] = (
        *(5.0, 300.0, 1_800.0, 7_200.0, 18_000.0),
        *(36_000.0, 50_400.0, 72_000.0, 86_400.0),
    )
    """Seconds after each failed try; after the last the event is given up."""
    final: frozenset[int] = frozenset({*range(200, 300), 410})
    """Statuses after which nothing is sent again."""

    def gives_up_after(self, status: int) -> bool:
        """Return whether a delivery whose first try is answered so is never sent again."""
        return not self.waits_s or status in self.final


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPath:
    """Where a body names an entity."""

    path: str
    """Dotted: `data.order_id`."""
    types: str = "*"
    """The event types in which it does; `*` stands for anything."""


class Source(ABC):
    """A configured sender. A plugin derives one class, and names it in the entry-point group
    `ingest.sources`, under its slug."""

    slug: ClassVar[str]
    """Names the source in paths, settings and tables: lower-case letters, digits and dashes."""
    title: ClassVar[str]
    """The sender's name, as people write it."""
    settings: ClassVar[type[SourceSettings]] = SourceSettings
    kept_headers: ClassVar[frozenset[bytes]] = frozenset()
    """Lower-case names of the request headers that are stored with a delivery."""
    samples: ClassVar[Samples]
    retries: ClassVar[Retries] = Retries()
    entities: ClassVar[Mapping[str, Sequence[FieldPath]]] = MappingProxyType({})
    """Where bodies name what searches look for, by kind: conversation, phone, order, message,
    contact."""
    persons: ClassVar[Sequence[FieldPath]] = ()
    """Which fields of bodies identify a person, such as phone numbers and contact ids. Erasures
    look there, and searches for a contact if no read model is made; nothing is masked by them
    yet."""
    read_model: ClassVar[str | None] = None
    """The built-in read model that is made of its events: `shop`, `whatsapp`; None: none is."""
    body_limit: ClassVar[int | None] = None
    """The size of the sender's largest body, in bytes; None: `INGEST_MAX_BODY_BYTES`."""

    success: ClassVar[Answer] = Answer(b'{"received": true}')
    """The answer to a delivery that is stored."""
    signs_challenges: ClassVar[bool] = False
    """Whether the sender signs its challenges; then one without a good signature is refused."""
    signs_bodies: ClassVar[bool] = True
    """Whether a signature covers the body; a token in a header or a query proves no body."""
    sends_batches: ClassVar[bool] = False
    """Whether a request may hold several events, which `split` takes apart."""
    issues_secrets: ClassVar[bool] = False
    """Whether the sender makes the secrets itself; then `ingest up` makes none for it."""

    def __init__(self, settings: SourceSettings) -> None:
        """Make a source with its settings. Parsing stored bodies needs no secrets."""
        self._settings = settings
        self.secrets = tuple(secret.get_secret_value() for secret in settings.secrets)
        self.tolerance_s = settings.tolerance_s

    @property
    @abstractmethod
    def key_ids(self) -> tuple[str, ...]:
        """The names of the live secrets, newest first; a name does not give its secret away."""

    @abstractmethod
    def is_signed(self, headers: Headers) -> bool:
        """Return whether the request claims a signature at all."""

    @abstractmethod
    def verify(self, request: WebhookRequest, *, now: int) -> str:
        """Return the id of the key that signed the request.

        Args:
            request: with the raw bytes of its body.
            now: Unix time in seconds.

        Raises:
            InvalidSignature: for anything else than a good signature within the time window.
        """

    @abstractmethod
    def sign(self, body: bytes, *, now: int) -> Mapping[str, str]:
        """Return the headers that the sender would send with `body` at `now` (Unix seconds).

        Raises:
            CannotSign: there is no secret.
        """

    def sign_again(self, body: bytes, headers: Headers, *, now: int) -> Mapping[str, str]:
        """Return the headers with which a stored body is sent as the same event once more.

        The source of a sender that names events in headers overrides this.

        Args:
            body: as stored.
            headers: the `kept_headers` of its delivery.
            now: when it is stamped and signed, Unix seconds.

        Raises:
            CannotSign: there is no secret.
        """
        return self.sign(body, now=now)

    def answer_challenge(self, request: WebhookRequest, *, now: int) -> Answer | None:
        """Return the answer to a set-up challenge, or None if the request is none.

        It is asked of requests without a signature, of signed ones that are no event, and of `GET`.
        Where `signs_challenges`, the signature was good.

        Raises:
            InvalidSignature: it is a challenge by `GET`, and does not prove that it comes from the
                sender.
        """
        return None

    def split(self, body: bytes) -> Sequence[bytes] | None:
        """Return the bodies of the events that a verified body holds; None: it is one event itself.

        A sender that puts several events in one request has a source that overrides this. Each body
        that it returns is one that the sender could have sent with this event alone, so `parse` and
        `identify` take it. If `parse` refuses one, it is rejected, and the others are not. A body
        that cannot be split may be left to `parse`: then None is returned.

        Raises:
            InvalidEnvelope: the body is no event, and holds none.
        """
        return None

    @abstractmethod
    def parse(self, body: bytes) -> Envelope:
        """Parse a verified body.

        Raises:
            InvalidEnvelope: the body is no event of this sender.
        """

    @abstractmethod
    def identify(self, envelope: Envelope, headers: Headers = ()) -> EventIdentity:
        """Return the event's id, so that every delivery of one occurrence gets the same.

        `headers` are the request's `kept_headers`: senders that name id or type there have to keep
        them, because stored deliveries are identified again by a replay.
        """

    def title_event(self, envelope: Envelope) -> Title | None:
        """Return what happened, in a few words (ingest.sources.titles): `Order 789 shipped`.

        Lists show it, of stored bodies. A source without words of its own has the type's, and the
        first of its `entities` that the body names. Bodies may hold anything, and may be cut: what
        a title needs and is not there makes it None, then the row shows the type.

        `envelope` is what `parse` returned, with the type that the event is stored with.
        """
        return titles.by_type(envelope.type, envelope.fields, self.entities)

    @classmethod
    def event_ids(cls, kind: str, value: str) -> Sequence[str]:
        """Return the ids that events may have which are named after an entity.

        Args:
            kind: of the entity, as in `entities`.
            value: what the entity is called: any text, of a number its digits.
        """
        return ()

    @classmethod
    def recovery(cls) -> Recovery | None:
        """Return how deliveries that the sender gave up are asked for again; None: they are not."""
        return None

    @classmethod
    def signed_at(cls, headers: Mapping[str, str]) -> datetime | None:
        """Return when a stored delivery was signed, by its kept headers; None: nobody knows."""
        return None

    @classmethod
    def simulate(cls, random: Random, *, opened_at: datetime) -> Iterator[Occurrence]:
        """Yield what happens at a customer of the sender's, for ever, from `opened_at` on. Without
        a scenario of its own, a source's samples happen one after another."""
        return _samples(cls.samples, random, opened_at)

    def with_secret(self, secret: str) -> "Source":
        """Return the same source with another secret, and no other."""
        return type(self)(self._settings.model_copy(update={"secrets": (SecretStr(secret),)}))

    @classmethod
    def needs_secret(cls) -> bool:
        """Return whether the source is received only if it has a secret."""
        return True

    @classmethod
    def file(cls, field: str) -> Path | None:
        """Return the file that holds one of its settings, such as `secrets`, where no variable has
        it; None: there is none."""
        return None

    def newest_secret(self) -> str:
        """Return the secret to sign with.

        Raises:
            CannotSign: there is none.
        """
        if not self.secrets:
            raise CannotSign(
                f"No secret to sign with: set {self.variable('secrets')}"
                f"{'' if self.issues_secrets else ', or run `ingest up` in this folder'}.",
                reason="no_secret",
            )
        return self.secrets[0]

    @classmethod
    def variable(cls, field: str) -> str:
        """Return the name of the environment variable of one of its settings."""
        return f"INGEST_{cls.slug.replace('-', '_').upper()}_{field.upper()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    number: int
    type: str
    content: bytes

    def body(self, _sent_at: datetime | None = None) -> bytes:
        return self.content


def _samples(samples: Samples, random: Random, opened_at: datetime) -> Iterator[Occurrence]:
    number = 0
    while True:
        event_type = random.choice(samples.types)
        content = samples.make(event_type, random, opened_at)
        yield _Sample(number=number, type=event_type, content=content)
        number += 1


def encoded_headers(pairs: Iterable[Sequence[str]]) -> Headers:
    """Return headers that were stored as text, `[[name, value], …]`, as a request has them."""
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in pairs]


def join_event_id(event_type: str, *parts: str, mark: str = "") -> str:
    """Return an event id: the type, then what tells one occurrence from another.

    Ids made of different parts never coincide: the separators are escaped inside parts, `mark`
    keeps the ways of naming apart, and a part that is too long for an index or that no text
    column takes is represented by its digest."""
    return ":".join([_part(event_type), *(mark + _part(part) for part in parts)])


def column_type(event_type: str) -> str:
    """Return the event type as columns and registries hold it."""
    return storable(event_type, limit=TYPE_LIMIT)


def _part(text: str) -> str:
    # Most parts are plain; translate takes ten times as long to find that out.
    if len(text) <= _PART_LIMIT and not _NOT_PLAIN.search(text):
        return text
    if len(text) > _PART_LIMIT or not is_storable(text):
        return "#" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return text.translate(_ESCAPES)


_NOT_PLAIN = re.compile("[%:@#\x00\ud800-\udfff]")
_ESCAPES = str.maketrans({"%": "%25", ":": "%3A", "@": "%40", "#": "%23"})
