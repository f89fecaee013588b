"""Events for tests: samples of each source, with a test's own fields in them."""

from collections.abc import Mapping
from datetime import datetime
from random import Random
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import msgspec

from ingest.sources.base import CannotSign, Envelope, Headers, NoSample, Source
from workers.event import Event

_SECRET = "c2VjcmV0IG9mIHRoZSBzYW1wbGVzIG9mIGEgdGVzdA=="  # noqa: S105 - signs samples only
_FORM = "application/x-www-form-urlencoded"
_JSON = msgspec.json.Encoder(decimal_format="number")


class EventMaker:
    """Makes events; the same calls in the same order make the same ones."""

    def __init__(self, sources: Mapping[str, Source], default: str, *, random: Random) -> None:
        """`default` is the source of types of which several sources have samples."""
        self._sources = sources
        self._default = default
        self._random = random

    def sample(
        self, event_type: str, *, source: str | None, at: datetime, fields: Mapping[str, Any]
    ) -> Event:
        """Return a sample of a type that happened `at`, with `fields` in its data.

        Raises:
            NoSample: no source, or not this one, has samples of such a type.
            ValueError: the sender's data is no object that fields can be put in.
        """
        sender = self._source_of(event_type) if source is None else self._named(source)
        sender.samples.check(event_type)
        body = sender.samples.make(event_type, self._random, at)
        headers = _headers(sender, body, at)
        if fields:
            body = _with_fields(sender, body, headers, fields)
        return self._event(sender, body, headers, at)

    def read(self, body: bytes, *, source: str | None, headers: Headers, at: datetime) -> Event:
        """Return the event of a body, as it would be stored.

        Raises:
            NoSample: there is no such source.
            InvalidEnvelope: the body is no event of the source.
        """
        return self._event(self._named(source or self._default), body, headers, at)

    def _event(self, source: Source, body: bytes, headers: Headers, at: datetime) -> Event:
        envelope = source.parse(body)
        named = source.identify(envelope, headers)
        identifier = str(UUID(int=self._random.getrandbits(128), version=4))
        return Event(
            id=identifier,
            source=source.slug,
            event_id=named.event_id,
            type=named.type,
            occurred_at=envelope.occurred_at,
            received_at=at,
            data=envelope.data,
            body=body,
            attempt=1,
            idempotency_key=identifier,
        )

    def _named(self, slug: str) -> Source:
        source = self._sources.get(slug)
        if source is None:
            there_are = ", ".join(self._sources)
            raise NoSample(f"There is no source {slug}; there is {there_are}.", reason="bad_source")
        return source

    def _source_of(self, event_type: str) -> Source:
        """Return the source that documents a type: the default one, or the only one."""
        having = [
            slug for slug, source in self._sources.items() if event_type in source.samples.types
        ]
        if self._default in having or not having:
            return self._sources[self._default]
        if len(having) > 1:
            raise NoSample(
                f"Several sources send {event_type}: say source= one of {', '.join(having)}.",
                reason="ambiguous_type",
            )
        return self._sources[having[0]]


def _headers(source: Source, body: bytes, at: datetime) -> Headers:
    """Return the headers of a sample's request that are stored with it; none of a sender whose
    signature needs more than a secret, such as its own address."""
    try:
        signed = source.with_secret(_SECRET).sign(body, now=int(at.timestamp()))
    except CannotSign:
        return ()
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in signed.items()]
    return [pair for pair in pairs if pair[0] in source.kept_headers]


def _with_fields(source: Source, body: bytes, headers: Headers, fields: Mapping[str, Any]) -> bytes:
    """Return the body with these fields in its event's data."""
    parsed = source.parse(body)
    parsed.data.update(fields)  # it is one of the fields of the whole, or the whole
    changed = _encode(parsed, body)
    if not fields.keys() <= source.parse(changed).data.keys():
        raise ValueError(
            f"the data of {source.slug}'s events is not an object of the body:"
            " make the body yourself, and pass it to pipeline.read()"
        )
    return changed


def _encode(envelope: Envelope, original: bytes) -> bytes:
    if original.lstrip().startswith((b"{", b"[")):
        return _JSON.encode(envelope.fields)
    return urlencode(envelope.fields, doseq=True).encode()
