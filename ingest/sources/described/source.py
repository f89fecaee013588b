"""Make a source of a description."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import Field, SecretStr, create_model, field_validator

from ingest import strict_json
from ingest.ids import MAX_ELEMENTS
from ingest.recovery.base import Recovery
from ingest.sources import verify_tokens
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
from ingest.sources.bodies import MAX_SPLIT_BYTES, lookup, refuse
from ingest.sources.described import keys, naming, template, titles
from ingest.sources.described.description import (
    Challenge,
    Description,
    Recover,
    RetryPolicy,
    Sample,
)
from ingest.sources.described.signature import Verifier, encoded_names, query_of
from ingest.sources.titles import Title
from ingest.sources.verify_tokens import VerifyTokenSettings
from ingest.timestamps import parse_timestamp

_CHALLENGE_LIMIT = 4096


class DescribedSource(Source):
    """A source that follows a description. `source_class` makes a class for each."""

    description: ClassVar[Description]

    def __init__(self, settings: SourceSettings) -> None:
        super().__init__(settings)
        description = self.description
        ignored = self._ignored = frozenset(description.ignore)
        self._verifier = Verifier(description, self.secrets, self.tolerance_s)
        self._id_of = naming.namer(description.id, ignored)
        self._type_of = naming.namer(description.type)
        self._title_of = titles.titler(description.titles)

    @property
    def key_ids(self) -> tuple[str, ...]:
        return tuple(keys.name(secret) for secret in self.secrets)

    def is_signed(self, headers: Headers) -> bool:
        verify = self.description.verify
        if verify.header is None:
            return self.description.challenge is None
        return any(name in self._verifier.names for name, _ in headers)

    def verify(self, request: WebhookRequest, *, now: int) -> str:
        return self._verifier.verify(request, now)

    def sign(self, body: bytes, *, now: int) -> Mapping[str, str]:
        description = self.description
        sample = _sample_of(description, body)
        headers = {"content-type": sample.content_type, **sample.headers}
        needed = (description.verify.signed, description.id[0], description.type[0])
        return self._signed(body, headers, needed, now)

    def sign_again(self, body: bytes, headers: Headers, *, now: int) -> Mapping[str, str]:
        description = self.description
        templates = (description.verify.signed, *description.id, *description.type)
        naming_headers = {name for part in _header_parts(templates) for name in part.names}
        naming_headers -= {name.decode() for name in self._verifier.stamps}
        again = {"content-type": _sample_of(description, body).content_type}
        for name, value in headers:
            if name.decode() in {"content-type", *naming_headers}:
                again[name.decode()] = value.decode("latin-1")
        return self._signed(body, again, (description.verify.signed,), now)

    def _signed(
        self, body: bytes, headers: dict[str, str], needed: Sequence[str], now: int
    ) -> dict[str, str]:
        """Return headers with a signature, and with an id in those that a template needs."""
        identifier = hashlib.sha256(body).hexdigest()[:32]
        for part in _header_parts(needed):
            if not headers.keys() & set(part.names):
                headers[part.names[0]] = identifier
        return headers | self._signature(body, headers, now)

    def _signature(self, body: bytes, headers: dict[str, str], now: int) -> dict[str, str]:
        verify, time = self.description.verify, self.description.time
        if verify.scheme == "none":
            return {}
        secret = self.newest_secret()
        name = (verify.header or "").split("|")[0]
        if verify.scheme == "token":
            return {name: verify.prefix + secret}
        stamp = str(now if time is None or time.unit == "s" else now * 1000)
        if time is not None and time.header is not None:
            headers[time.header.split("|")[0]] = stamp
        fields = {time.field.encode(): [stamp.encode()]} if time and time.field else {}
        raw = [(header.encode(), value.encode("latin-1")) for header, value in headers.items()]
        digest = self._verifier.digest(self._verifier.first_key(), raw, body, fields)
        value = verify.prefix + self._verifier.encoded(digest)
        if verify.separator:
            stamped = [(time.field, stamp)] if time and time.field else []
            items = [*stamped, (verify.field, value)]
            value = verify.separator.join(verify.field_separator.join(item) for item in items)
        return {name: value} | ({time.header.split("|")[0]: stamp} if time and time.header else {})

    def newest_secret(self) -> str:
        verify = self.description.verify
        if verify.scheme == "none":
            return ""
        if verify.header is None:
            raise CannotSign(
                f"{self.title} sends its secret in the body or in the address: no header signs.",
                reason="not_signable",
            )
        signing = [secret for secret in self.secrets if not keys.is_public(secret, verify)]
        if self.secrets and not signing:
            raise CannotSign(
                f"{self.title} has public keys only, and they cannot sign.", reason="not_signable"
            )
        return signing[0] if signing else super().newest_secret()

    def answer_challenge(self, request: WebhookRequest, *, now: int) -> Answer | None:
        challenge = self.description.challenge
        if challenge is None or challenge.method != request.method:
            return None
        if challenge.method == "GET":
            return self._answer_get(challenge, request.target)
        if len(request.body) > _CHALLENGE_LIMIT:
            return None
        try:
            fields = strict_json.loads(request.body)
        except strict_json.InvalidJson:
            return None
        echoed = lookup(fields, challenge.echo)
        if not _is_challenge(fields, challenge) or not isinstance(echoed, str):
            return None
        return Answer(json.dumps({challenge.echo: echoed}).encode("ascii"))

    def _answer_get(self, challenge: Challenge, target: str) -> Answer | None:
        query = query_of(target)
        values = [query.get(name, []) for name in (challenge.match_field, challenge.echo)]
        if values[0] != [challenge.match_value] or len(values[1]) != 1:
            return None
        tokens = query.get(challenge.token or "", [])
        verify_tokens.check(tokens, self._settings, self.variable("verify_token"))
        return Answer(values[1][0].encode(), b"text/plain")

    def parse(self, body: bytes) -> Envelope:
        description = self.description
        fields = naming.decode(body, description)
        if description.challenge and _is_challenge(fields, description.challenge):
            refuse("challenge", "a challenge is no event")
        data = lookup(fields, description.data) if description.data else fields
        return Envelope(
            type="",  # headers may name it: `identify` does
            occurred_at=_first_time(fields, description.occurred_at),
            data=data if isinstance(data, dict) else fields,
            fields=fields,
        )

    def identify(self, envelope: Envelope, headers: Headers = ()) -> EventIdentity:
        type_parts = self._type_of(envelope.fields, headers)
        if type_parts is None:
            refuse("type_missing", "nothing names the event's type")
        id_parts = self._id_of(envelope.fields, headers)
        if id_parts is None:
            refuse("id_missing", "nothing names the event")
        event_type = "".join(type_parts)
        return EventIdentity(
            event_id=join_event_id(event_type, *id_parts),
            type=column_type(event_type),
            fingerprint=naming.content(envelope.fields, self._ignored),
        )

    def title_event(self, envelope: Envelope) -> Title | None:
        whole = self._title_of(envelope.type, envelope.fields)
        return whole or super().title_event(envelope)

    def split(self, body: bytes) -> Sequence[bytes] | None:
        """Return a body for each event, or None: the body is one event.

        Raises:
            InvalidEnvelope: the body cannot be read.
        """
        split = self.description.split
        if split is None:
            return None
        fields = naming.decode(body, self.description)
        items = lookup(fields, split.path)
        is_batch = split.if_field is None or lookup(fields, split.if_field) is True
        if not isinstance(items, list) or not is_batch:
            return None
        if len(items) > MAX_ELEMENTS:
            refuse("too_many_events", f"the body holds more than {MAX_ELEMENTS:,} events")
        if split.element == "item":
            return [strict_json.canonical(item) for item in items]
        return _bounded(strict_json.canonical(_with(fields, split.path, [item])) for item in items)

    @classmethod
    def file(cls, field: str) -> Path | None:
        challenge = cls.description.challenge
        if field == "verify_token":
            return challenge.verify_token_file if challenge else None
        return cls.description.secrets_file if field == "secrets" else None

    @classmethod
    def recovery(cls) -> Recovery | None:
        recover = cls.description.recover
        return None if recover is None else _recovery(recover)

    @classmethod
    def needs_secret(cls) -> bool:
        return cls.description.verify.scheme != "none"

    @classmethod
    def variable(cls, field: str) -> str:
        challenge = cls.description.challenge
        if field == "secrets" and cls.description.secrets_env:
            return cls.description.secrets_env
        if field == "verify_token" and challenge and challenge.verify_token_env:
            return challenge.verify_token_env
        return super().variable(field)


def source_class(name: str, description: Description) -> type[DescribedSource]:
    """Return the class of a source with this slug."""
    attributes: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": f"The source `{name}`.",
        "slug": name,
        "title": description.title,
        "description": description,
        "settings": _settings(description),
        "kept_headers": _kept(description),
        "samples": _samples(description),
        "retries": _retries(description.retries),
        "entities": MappingProxyType(
            {
                kind: tuple(FieldPath(path=path) for path in paths)
                for kind, paths in description.entities.items()
            }
        ),
        "persons": tuple(FieldPath(path=path) for path in description.persons),
        "body_limit": description.body_limit,
        "success": Answer(
            description.success.body.encode(), description.success.content_type.encode()
        ),
        "signs_bodies": description.verify.is_signature,
        "sends_batches": description.split is not None,
        # `ingest up` cannot make the sender's public key, nor guess how a key in hex is long.
        "issues_secrets": description.verify.scheme in ("none", "ed25519")
        or description.verify.key == "hex",
        "signs_challenges": bool(description.challenge and description.challenge.signed),
    }
    return type("Described", (DescribedSource,), attributes)


def _settings(description: Description) -> type[SourceSettings]:
    by_token = description.challenge is not None and description.challenge.method == "GET"
    base = VerifyTokenSettings if by_token else SourceSettings

    class Checked(base):  # type: ignore[valid-type, misc]  # chosen here
        @field_validator("secrets")
        @classmethod
        def _decodable(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
            for position, secret in enumerate(secrets, start=1):
                try:
                    keys.check(secret.get_secret_value(), description.verify)
                except ValueError as error:
                    raise ValueError(f"secret {position} {error}") from None
            return secrets

    time = description.time
    if time is None:
        return Checked
    field = SourceSettings.model_fields["tolerance_s"]
    return create_model(
        "DescribedSettings",
        __base__=Checked,
        tolerance_s=(int, Field(time.past_s, gt=0, lt=2**31, description=field.description)),
    )


def _kept(description: Description) -> frozenset[bytes]:
    templates = (description.verify.signed, *description.id, *description.type)
    names = [
        *("content-type", "content-encoding", "user-agent"),
        *description.kept_headers,
        *(
            name
            for line in templates
            for part in template.parse(line)
            if part.kind == "header"
            for name in part.names
        ),
    ]
    if description.time is not None and description.time.header:
        names.append(description.time.header)
    if (
        description.verify.is_signature and description.verify.header
    ):  # a token is the secret itself
        names.append(description.verify.header)
    return frozenset(name for text in names for name in encoded_names(text))


def _recovery(recover: Recover) -> Recovery:
    from ingest.recovery import tokens  # only `ingest recover` needs them
    from ingest.recovery.github import GithubHooks

    def token(now: float) -> str:
        text = tokens.read(recover.token_env, recover.token_file)
        return (
            tokens.plain(text) if recover.app is None else tokens.of_app(recover.app, text, now=now)
        )

    return GithubHooks(url=recover.url, hooks=recover.hooks, token=token)


def _retries(policy: RetryPolicy | None) -> Retries:
    if policy is None:
        return Retries()
    statuses = {
        status
        for form in policy.final
        for status in range(100, 600)
        if form in (str(status), f"{status // 100}xx")
    }
    return Retries(waits_s=policy.waits_s, final=frozenset(statuses))


def _samples(description: Description) -> Samples:
    by_type = {sample.type: sample for sample in description.samples}

    def make(event_type: str, random: Random, now: datetime) -> bytes:
        sample = by_type[event_type]
        moment = now.astimezone(UTC).replace(microsecond=0)
        text = sample.body.replace("<time>", f"{moment:%Y-%m-%dT%H:%M:%S}Z")
        text = text.replace("<seconds>", str(int(moment.timestamp())))
        text = text.replace("<id>", f"{random.getrandbits(96):024x}")
        return text.replace("<number>", str(random.randrange(1, 10**12))).strip().encode()

    return Samples(types=tuple(by_type), make=make, makes_others=False)


def _sample_of(description: Description, body: bytes) -> Sample:
    """Return the sample that a body is made of: it has the same fields, or as many as possible."""
    names = _field_names(body)
    return max(
        description.samples, key=lambda sample: len(names & _field_names(sample.body.encode()))
    )


def _field_names(body: bytes) -> set[str]:
    return {piece.decode("latin-1") for piece in body.replace(b"&", b'"').split(b'"')}


def _header_parts(templates: Sequence[str]) -> list[template.Part]:
    """Return the parts of templates that are headers."""
    return [part for line in templates for part in template.parse(line) if part.kind == "header"]


def _first_time(fields: Mapping[str, Any], paths: Sequence[str]) -> datetime | None:
    for path in paths:
        time = parse_timestamp(lookup(fields, path))
        if time is not None:
            return time
    return None


def _is_challenge(fields: object, challenge: Challenge) -> bool:
    is_post = challenge.method == "POST"
    return is_post and lookup(fields, challenge.match_field) == challenge.match_value


def _bounded(bodies: Iterable[bytes]) -> list[bytes]:
    """Return the bodies of a request's events, each of which repeats what stands beside them."""
    kept: list[bytes] = []
    size = 0
    for body in bodies:
        kept.append(body)
        size += len(body)
        if size > MAX_SPLIT_BYTES:
            refuse(
                "events_too_large",
                f"the events of the body have more than {MAX_SPLIT_BYTES:,} bytes together",
            )
    return kept


def _with(fields: Any, path: str, value: Any) -> Any:
    """Return a copy of `fields` with another value under a path."""
    step, _, rest = path.partition(".")
    if isinstance(fields, list):
        place = int(step)
        inner = _with(fields[place], rest, value) if rest else value
        return [*fields[:place], inner, *fields[place + 1 :]]
    return {**fields, step: _with(fields[step], rest, value) if rest else value}
